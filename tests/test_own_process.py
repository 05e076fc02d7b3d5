"""What is inspected runs in a process of its own: nothing that it does there ends, silences or breaks the one that reports."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks where Linux can")

_SCRIPT = """
import os, signal, sys, threading, time
from peft_inspect.project.own_process import in_own_process
from peft_inspect.records import InspectionError

def work():
    {body}
    return "an answer"

try:
    print(in_own_process("t.py:build", work, debug=False))
except (InspectionError, KeyboardInterrupt) as error:
    print(type(error).__name__, error)
"""


def answered(body: str) -> str:
    command = [sys.executable, "-c", _SCRIPT.replace("{body}", body)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60, check=False)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "body",
    [
        "print('spoken')",
        "os.write(1, b'written')",
        "os.close(1); os.close(2); sys.stdout = None",
        "os.closerange(3, 256)",
        "[os.write(n, b'junk') for n in range(3, 30) if os.path.exists(f'/proc/self/fd/{n}') and os.access(f'/proc/self/fd/{n}', os.W_OK)]",
        "threading.Thread(target=time.sleep, args=(300,)).start()",
        "os.fork() or time.sleep(30)",
        "import builtins; builtins.__import__ = builtins.str = None",
        "import atexit; atexit.register(os._exit, 1)",
        "os.chdir('/'); os.environ.clear(); os.umask(0o777); sys.path.clear(); sys.argv = None",
    ],
)
def test_the_answer_comes_whatever_happened_to_the_process(body: str) -> None:
    assert answered(body) == "an answer"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os._exit(0)", "ended its process before it was inspected (exit code 0)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended its process before it was inspected (SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "(SIGKILL: the machine may be out of memory)"),
        ("raise InspectionError('no such model')", "InspectionError no such model"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "t.py:build ended with GeneratorExit before it could be inspected"),
        ("raise RuntimeError('x')", "internal error: RuntimeError: x"),
    ],
)
def test_an_end_without_an_answer_is_no_result(body: str, said: str) -> None:
    assert said in answered(body)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os._exit(0)", "the program ended itself by os._exit(0)"),
        ("import sys; sys.stderr.close(); sys.stdout = None", "no training step was seen"),
        ("import os; os.close(2); log = open('log', 'w'); os.write(2, b'into the log')", "no training step was seen"),
        ("import os; os.closerange(3, 256)", "no training step was seen"),
    ],
)
def test_a_program_under_run_can_neither_make_a_verdict_nor_silence_one(tmp_path, program: str, said: str) -> None:
    (tmp_path / "train.py").write_text(program)
    command = [sys.executable, "-m", "peft_inspect", "run", "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
