"""The processes of one job, and what they tell each other so that all of them come to one verdict.

They talk over the store that they met through, never by a collective: that would queue up among those of the program, want a
group of its own where the program's is one of GPUs, and hang where a process stays away.
"""

from __future__ import annotations

import itertools
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from peft_inspect.internals import find
from peft_inspect.records import InspectionError, text_of
from peft_inspect.structure.runtimes import place

_PAUSE = 0.005  # seconds between two looks at what the others have said
_PATIENCE = 60.0  # seconds in which every process is expected at the end of its step
STUCK = 5.0
"""The same, where those that are missing wait in their backward while this one has left it."""

_jobs = itertools.count()


class NoVerdictError(InspectionError):
    """The processes came to no verdict together. Every one of them learns of it, and the training goes on."""


class Ranks:
    """This process among those of its job.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        missing: the ranks that did not answer the last question.
    """

    def __init__(self, rank: int, size: int, store: Any) -> None:
        self.rank, self.size = rank, size
        self.missing: frozenset[int] = frozenset()
        self._store = store
        self._name = f"peft_inspect/{next(_jobs)}"
        self._round = 0

    @classmethod
    def of_this_job(cls) -> Ranks | None:
        """The processes of this job; None where the program has not set up any."""
        rank, size = place()
        if size == 1:
            return cls(0, 1, None) if _is_set_up() else None
        default_store = find("default_store")
        store = None if default_store is None else default_store()
        return cls(rank, size, store)

    def within_backward(self, *, inside: bool) -> None:
        """Tell the others that this process has gone into its backward, or has come out of it."""
        if self.size > 1 and self._store is not None:
            self._store.set(f"{self._name}/backward/{self.rank}", str(int(inside)))

    def say_blind(self, *, blind: bool) -> None:
        """Tell the others whether adapter layers ran here, and none with gradients; asked of processes that stay in their backward."""
        if self._store is not None:
            self._store.set(f"{self._name}/blind/{self.rank}", str(int(blind)))

    def others_wait_seeing(self) -> bool:
        """Whether every other process is in its backward, and one of them ran its adapter layers with gradients."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        keys = {rank: f"{self._name}/blind/{rank}" for rank in others}
        if self._store is None or not all(map(self._is_in_backward, others)):
            return False
        return any(self._has(key) and self._store.get(key) == b"0" for key in keys.values())

    def leave_others(self) -> None:
        """Answer without them from now on."""
        self.missing = frozenset(range(self.size)) - {self.rank}

    def exchange(self, record: Any) -> list[Any]:
        """What every rank has said at this point, by rank; None of one that has left, or that did not come.

        Args:
            record: of this rank, as JSON has it.

        Raises:
            NoVerdictError: the others have gone on without this one, the watching of one has failed, or there is no store to talk
                over.
        """
        if self.size == 1:
            return [record]
        if self._store is None:
            raise NoVerdictError("the processes met without a store, and cannot tell each other what they saw")
        at = self._say({"said": record})
        missing = self._missing(at)
        decided = self._store.compare_set(f"{at}/decided", "", ",".join(map(str, sorted(missing))) or "all").decode()
        self.missing = frozenset() if decided == "all" else frozenset(map(int, decided.split(",")))
        if self.rank in self.missing:
            raise NoVerdictError(f"the other processes did not wait for rank {self.rank} of {self.size}")
        said = [self._said(f"{at}/{rank}") if rank not in self.missing else None for rank in range(self.size)]
        for rank, heard in enumerate(said):
            if heard is not None and "failed" in heard:
                raise NoVerdictError(f"the watching failed on {told([rank], self.size)}: {heard['failed']}")
        return [None if heard is None else heard["said"] for heard in said]

    def fail(self, error: BaseException) -> str:
        """Tell the others, in the place of an answer, that the watching has failed here; returns what all of them will say."""
        reason = f"{type(error).__name__}: {text_of(error)}"
        if self._store is not None:
            self._say({"failed": reason})
        return f"the watching failed on {told([self.rank], self.size)}: {reason}"

    def _say(self, record: Mapping[str, Any]) -> str:
        self._round += 1
        at = f"{self._name}/{self._round}"
        self._store.set(f"{at}/{self.rank}", zlib.compress(json.dumps(record, default=str).encode()))
        return at

    @property
    def writes(self) -> bool:
        """Whether the report is this process's to write: the first one's, of those that came to the verdict."""
        return self.rank == min(frozenset(range(self.size)) - self.missing)

    def has_written(self) -> None:
        """Tell the others that the report is written: where one process ends, the others are ended with it."""
        if self.size > 1:
            self._note("written")

    def wait_for_report(self) -> None:
        """Until that has been told, or nobody is left to tell it."""
        began = time.monotonic()
        with suppress(Exception):  # whoever kept the store has ended
            while self._store is not None and not self._has(f"{self._name}/written") and time.monotonic() - began < STUCK:
                time.sleep(_PAUSE)

    def leave(self) -> None:
        """Tell the others not to wait for this process any longer."""
        if self.size > 1:
            self._note(f"gone/{self.rank}")

    def _note(self, key: str) -> None:
        with suppress(Exception):  # whoever kept the store has ended before: nobody waits
            self._store.set(f"{self._name}/{key}", "1")

    def _missing(self, at: str) -> frozenset[int]:
        began = time.monotonic()
        missing = frozenset(range(self.size)) - {self.rank}
        while missing := frozenset(
            rank for rank in missing if not self._has(f"{at}/{rank}") and not self._has(f"{self._name}/gone/{rank}")
        ):
            waited = time.monotonic() - began
            if waited > _PATIENCE or (waited > STUCK and all(self._is_in_backward(rank) for rank in missing)):
                break
            time.sleep(_PAUSE)
        return missing

    def _has(self, key: str) -> bool:
        return bool(self._store.check([key]))

    def _is_in_backward(self, rank: int) -> bool:
        key = f"{self._name}/backward/{rank}"
        return self._has(key) and self._store.get(key) == b"1"

    def _said(self, key: str) -> Any:
        return json.loads(zlib.decompress(self._store.get(key))) if self._has(key) else None


def told(ranks: Sequence[int], size: int) -> str:
    """The ranks as reports name them: `rank 1 of 2`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} of {size}"


def _is_set_up() -> bool:
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized()
