"""Whole screens of six real models, as people see them at 80 and 120 columns, with and without colour.

After a change that is meant: `PEFT_INSPECT_SCREENS=write pytest tests/formats/test_screens.py`, and read the difference.
"""

import os
import re
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from peft_inspect.api import inspect
from peft_inspect.formats import View, writer
from peft_inspect.records import Request

ROOT = Path(__file__).parent.parent.parent
SCREENS = Path(__file__).parent / "screens"
EXAMPLE = "docs/examples/speech_emotion.py"
TINY = {
    "num_hidden_layers": 3,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}

SHOWN = ("PI112", "PI305", "PI310")  # the outcomes on the screens, so that a new rule does not change them all

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def lora(model, modules, **fields):
    return Request(model, lora_fields={"target_modules": modules}, **fields)


MODELS = {
    "tiny_llama": ("gradcheck", lora("arch:llama", ["q_proj", "v_proj"], config_fields=TINY)),
    "qwen2_audio_broken": ("check", Request(f"{EXAMPLE}:build_detached", batch=f"{EXAMPLE}:make_batch")),
    "qwen2_audio_healthy": ("check", Request(f"{EXAMPLE}:build_model", batch=f"{EXAMPLE}:make_batch")),
    "deepseek_v3": ("tree", lora("arch:deepseek_v3", "all-linear")),
    "llava_one_tower": ("tree", lora("arch:llava", r".*language_model.*\.(q_proj|v_proj)")),
    "bert": ("gradcheck", lora("arch:bert", ["query", "value"])),
}


PICTURES = {"tree": "tree.svg", "gradcheck": "gradcheck.svg"}  # of the broken Qwen2-Audio, for README and docs


@cache
def report(name):
    command, request = MODELS[name]
    found = inspect(request, command)
    return replace(found, outcomes=tuple(outcome for outcome in found.outcomes if outcome.code in SHOWN))


def compare(text, file):
    if os.environ.get("PEFT_INSPECT_SCREENS") == "write":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("color", [False, True], ids=["plain", "color"])
@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", MODELS)
def test_the_screen_is_the_one_that_was_looked_at(name, width, color, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = StringIO()
    command = MODELS[name][0]
    writer(command, "text", View(command, width=width, color=color))(report(name), out)
    compare(out.getvalue(), SCREENS / f"{name}-{width}{'-color' if color else ''}.txt")
    if not color:
        assert max(map(len, out.getvalue().splitlines())) <= width


@pytest.mark.parametrize("command", PICTURES)
def test_the_pictures_in_the_docs_are_real_output(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    out = StringIO()
    writer(command, "svg", View(command, width=100))(report("qwen2_audio_broken"), out)
    compare(out.getvalue(), ROOT / "docs" / "pictures" / PICTURES[command])


def test_no_colour_is_too_pale_for_a_light_terminal():
    """Terminals draw bold yellow, green and cyan in their bright shades, which nobody reads on white; nor white and bright ones."""
    for file in SCREENS.glob("*-color.txt"):
        for codes in re.findall(r"\x1b\[([\d;]*)m", file.read_text(encoding="utf-8")):
            given = codes.split(";")
            assert not {"37", *map(str, range(90, 98))} & set(given), (file.name, codes)
            assert not ("1" in given and {"32", "33", "36"} & set(given)), (file.name, codes)
