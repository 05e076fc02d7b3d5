"""A slice of the fuzzer: no input of it ends in a traceback, a hang, a wrong exit code, or anything left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.worker import PROOF, Case, Ending

_CASE = Case("config", ("tree",))


@pytest.mark.skipif(sys.platform != "linux", reason="limits and process descriptors of Linux")
def test_a_slice_of_hostile_inputs_ends_as_promised():
    fuzz = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--count", "78", "--seed", "2", "--seconds", "20"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert fuzz.returncode == 0, fuzz.stdout + fuzz.stderr
    assert "0 went wrong" in fuzz.stdout


@pytest.mark.parametrize(
    ("ending", "problem"),
    [
        (Ending(2, "", "peft-inspect: internal error: x", 0, left=()), "an internal error"),
        (Ending(1, "", "Traceback (most recent call last):", 0, left=()), "a traceback"),
        (Ending(-signal.SIGXCPU, "", "", 12, left=()), "a hang: 12 s of CPU"),
        (Ending(70, "", "", 0, left=()), "exit 70"),
        (Ending(2, "", "", 0, left=()), "exit 2 without a word"),
        (Ending(2, "", "a\n::error::b", 0, left=()), "a command on stderr"),
        (Ending(0, "\x1b[31m", "", 0, left=()), "control characters on stdout"),
        (Ending(0, "", "", 0, left=(f"work/{PROOF}",)), f"foreign code ran: work/{PROOF}"),
        (Ending(0, "", "", 0, left=("tmp/x",)), "left ('tmp/x',)"),
    ],
)
def test_the_fuzzer_sees_what_is_wrong(ending, problem):
    assert problem in ending.wrong(_CASE)


def test_the_fuzzer_takes_a_sentence_for_an_ending():
    assert Ending(2, "", "peft-inspect: there is no file x\n", 0.3, left=()).wrong(_CASE) == []
