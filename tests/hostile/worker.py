"""One run of the command in a process of its own, forked from one that has imported everything, under limits; and what is wrong with it."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

CPU, WALL, MEMORY = 10, 300, 2 << 30  # seconds, seconds on a machine that does much else, bytes over the imports
PROOF = "FOREIGN-CODE-RAN"  # a file or environment name that only code from the input would leave
_COMMAND = re.compile(r"^\s*(::[\w-]|##\[)", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_OWN_TRACEBACK = "this is the traceback of your code:"


@dataclass(frozen=True)
class Case:
    """Arguments of the command and the files that lie in its folder; a link stands for a path outside."""

    kind: str
    arguments: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)
    pipes: tuple[str, ...] = ()
    sparse: tuple[tuple[str, int], ...] = ()
    user_code: bool = False  # may print what it likes and raise what it likes


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    code: int  # negative: by this signal
    out: str
    err: str
    seconds: float  # of CPU, of what it started as well
    left: tuple[str, ...]  # files that were not there before

    def wrong(self, case: Case) -> list[str]:
        """What no run may do."""
        said = self.err.partition(_OWN_TRACEBACK)[0]
        found = [] if self.code in (0, 1, 2) else ["a hang" if self.code in (-signal.SIGXCPU, -signal.SIGKILL) else f"exit {self.code}"]
        if self.code == 2 and not self.err.strip():
            found.append("exit 2 without a word")
        if "internal error" in said:
            found.append("an internal error")
        if "Traceback (most recent call last)" in (said if case.user_code else self.err):
            found.append("a traceback")
        if self.seconds > CPU:
            found.append(f"{self.seconds:.0f} s of CPU")
        if len(self.err) > 40_000:
            found.append("megabytes on stderr")
        if not case.user_code:
            for name, text in (("stdout", self.out), ("stderr", self.err)):
                found += [f"a command on {name}"] if _COMMAND.search(text) else []
                found += [f"control characters on {name}"] if _CONTROL.search(text) else []
        return [
            *found,
            *(f"foreign code ran: {name}" for name in self.left if PROOF in name),
            *([f"left {self.left}"] if self.left else []),
        ]


def run(case: Case, seconds: int = CPU) -> Ending:
    """Run one case in a folder of its own."""
    place = Path(tempfile.mkdtemp(prefix="hostile-"))
    work, temporary = place / "work", place / "tmp"
    for folder in (work, temporary):
        folder.mkdir()
    _lay(case, work)
    before = _listing(place)
    try:
        with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
            child = os.fork()
            if child == 0:
                _become(case, work, temporary, out.fileno(), err.fileno(), seconds)
            code, used = _awaited(child)
        out, err = ((place / name).read_bytes().decode("utf-8", "replace") for name in ("out", "err"))
        left = tuple(sorted(_listing(place) - before - {"out", "err"}))
        return Ending(code, out, err, used, left)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _lay(case: Case, work: Path) -> None:
    for name, content in case.files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    for name in case.pipes:
        os.mkfifo(work / name)
    for name, size in case.sparse:
        with (work / name).open("wb") as file:
            file.truncate(size)


def _listing(place: Path) -> set[str]:
    found = {str(path.relative_to(place)) for path in place.rglob("*")}
    return {name for name in found if "__pycache__" not in name}


def _become(case: Case, work: Path, temporary: Path, out: int, err: int, seconds: int) -> NoReturn:
    """The forked process: its streams and folder, its limits, then the command."""
    code = 70
    try:
        os.setsid()
        for stream, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
            os.dup2(stream, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") for number in (1, 2))
        os.chdir(work)
        os.environ |= {"TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1", "COLUMNS": "120", "HOME": str(temporary)}
        tempfile.tempdir = None
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds + 2, seconds + 3))
        sys.argv = ["peft-inspect", *case.arguments]
        from peft_inspect.cli import main

        main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _awaited(child: int) -> tuple[int, float]:
    """Its exit code, or the negative of the signal, and seconds of CPU. Ends it with all it has started when its time is over."""
    end = time.monotonic() + WALL
    descriptor = os.pidfd_open(child)
    try:
        if not select.select([descriptor], [], [], end - time.monotonic())[0]:
            os.killpg(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
    finally:
        os.close(descriptor)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return code, used.ru_utime + used.ru_stime
