"""One run of the command in a process of its own, forked from one that has imported everything, under limits; and what is wrong with it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import runpy
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from peft_inspect.cli import main
from peft_inspect.project import own_process
from tests.hostile.values import PROOF

CPU, WALL, MEMORY = 10, 120, 2 << 30  # seconds, seconds on a machine that does much else, bytes over the imports
_COMMAND = re.compile(r"^\s*::[\w-]+.*::|##\[", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_OUR_FRAME = re.compile(r'File "[^"]*/peft_inspect/(?!__main__)[^"]*", line')
_leave = os._exit  # as it is before anybody replaces it


@dataclass(frozen=True)
class Case:
    """Arguments of the command and the files that lie in its folder; a link stands for a path outside."""

    kind: str
    arguments: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)
    pipes: tuple[str, ...] = ()
    sparse: tuple[tuple[str, int], ...] = ()
    codes: frozenset[int] = frozenset({0, 1, 2})  # that are right for it
    prints: bool = False  # its own code writes what it likes
    breaks: bool = False  # its code replaces what Python or torch are made of: all that is asked is an exit code that is no verdict
    makes: frozenset[str] = frozenset()  # files that it is asked to write
    script: bool = False  # the one argument is a script that calls the Python API

    @property
    def json(self) -> bool:
        """Whether its report is JSON, and on stdout."""
        given = self.arguments
        return ("--format", "json") in pairwise(given) and not {"-o", "--output", "--help"} & {*given}


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    code: int  # negative: by this signal
    out: str = ""
    err: str = ""
    seconds: float = 0.0  # of CPU, of what it started as well
    memory: int = 0  # bytes over the imports, at its largest
    left: tuple[str, ...] = ()  # files that were not there before

    def wrong(self, case: Case) -> list[str]:
        """What no run may do."""
        hung = self.code in {-signal.SIGXCPU, -signal.SIGKILL} - case.codes or self.seconds > CPU
        found = [f"a hang: {self.seconds:.0f} s of CPU"] if hung else [] if self.code in case.codes else [f"exit {self.code}"]
        if self.memory > MEMORY:
            found.append(f"memory: {self.memory / 1e9:.1f} GB")
        if case.breaks:
            return found + [f"foreign code ran: {name}" for name in self.left if PROOF in name]
        if self.code == 2 and not self.err.strip():
            found.append("exit 2 without a word")
        if "internal error" in self.err:
            found.append("an internal error")
        told = "Traceback (most recent call last)" in self.err and not case.prints
        if (told or _OUR_FRAME.search(self.err)) and "--debug" not in case.arguments:
            found.append("a traceback")
        if len(self.err) > 40_000:
            found.append("megabytes on stderr")
        if not case.prints:
            found += self._injected(told="github" in case.arguments, colored="always" in case.arguments)
        if not (case.prints and "run" in case.arguments):  # else its own output is on stdout as well
            found += self._half_written(case)
        found += [f"foreign code ran: {name}" for name in self.left if PROOF in name]
        return [*found, *([f"left {self.left}"] if self.left else [])]

    def _injected(self, *, told: bool, colored: bool) -> list[str]:
        """What a terminal or a CI runner would obey; where that is asked for, on stderr alone."""
        found = []
        for name, text in (("stdout", self.out), ("stderr", self.err)):
            found += [f"a command on {name}"] if _COMMAND.search(text) and not (told and name == "stdout") else []
            found += [f"control characters on {name}"] if _CONTROL.search(text) and not (colored and name == "stdout") else []
        return found

    def _half_written(self, case: Case) -> list[str]:
        """A report that is none: broken JSON, or one beside the word that nothing could be inspected."""
        if self.code in (0, 1) and case.json:
            try:
                json.loads(self.out)
            except ValueError as error:
                return [f"JSON that is none: {error}"]
        return ["a report beside exit 2"] if self.code == 2 and self.out.strip() and "crashed" not in self.err else []


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
            code, seconds, memory = _awaited(child)
        out, err = ((place / name).read_bytes().decode("utf-8", "replace") for name in ("out", "err"))
        left = tuple(sorted(_listing(place) - before - {"out", "err", *(f"work/{name}" for name in case.makes)}))
        return Ending(code, out, err, seconds, memory, left)
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
        _settle(work, temporary, out, err, seconds)
        code = _done(case)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        _leave(code)  # whatever became of Python, this process does not go on as the one that it was forked from


def _settle(work: Path, temporary: Path, out: int, err: int, seconds: int) -> None:
    os.setsid()
    for stream, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") for number in (1, 2))
    os.chdir(work)
    os.environ |= {"TMPDIR": str(temporary), "COLUMNS": "120", "HOME": str(temporary)}
    tempfile.tempdir = None
    most = _pages(0) + MEMORY * 3 // 2
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds + 2, seconds + 3))


def _done(case: Case) -> int:
    """The code that Python would exit with."""
    try:
        own_process.may_fork = lambda: True  # as from a shell: this process has no threads, although it has loaded torch
        if case.script:
            runpy.run_path(case.arguments[0], run_name="__main__")
        else:
            sys.argv = ["peft-inspect", *case.arguments]
            main()
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def _pages(which: int) -> int:
    """Bytes that this process has: 0 of addresses, 1 in memory."""
    return int(Path("/proc/self/statm").read_text().split()[which]) * resource.getpagesize()


def _awaited(child: int) -> tuple[int, float, int]:
    """Its exit code, or the negative of the signal; seconds of CPU; bytes. Ends it with all it has started when its time is over."""
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
    return code, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 - _pages(1)
