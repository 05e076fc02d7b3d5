"""Work that a step hands to other threads: torch's modes and its grad mode belong to each thread, so the watching goes along.

Pools keep their threads from one step to the next, so it is the work that is followed and not the thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial, wraps
from typing import Any, Protocol

from peft_inspect.reversible import patched
from peft_inspect.run import patches

Around = Callable[[], AbstractContextManager[object]]
Propagate = Callable[[], Around]
_POOLS = ("concurrent.futures.thread", "multiprocessing.pool")  # their threads take work that is followed already


def following_threads(propagate: Propagate) -> patched:
    """Follow what is given to thread pools inside and new threads.

    Args:
        propagate: called in the thread that hands work on; what it returns is called in the other thread, for a context to run the work in.
    """
    in_pools = ((*place, partial(_propagating, propagate)) for place in patches.THREAD_POOLS)
    return patched(*in_pools, (*patches.THREAD_START, partial(_starting, propagate)))


def _propagating(propagate: Propagate, original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def submit(pool: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return original(pool, _followed(function, propagate()), *args, **kwargs)

    return submit


def _starting(propagate: Propagate, original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def start(thread: Any) -> Any:
        if getattr(getattr(thread, "_target", None), "__module__", None) not in _POOLS:
            thread.run = _followed(thread.run, propagate())  # a thread is started once
        return original(thread)

    return start


def _followed(function: Callable[..., Any], around: Around) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with around():
            return function(*args, **kwargs)

    return run


class Watcher(Protocol):
    """What watches a step, thread by thread."""

    def in_thread(self) -> Around:
        """Called in the thread that hands work on: what to open in the thread that does the work."""


def propagated_from(*watchers: Watcher) -> Propagate:
    """What these watchers need in a thread that work is handed to, outermost first."""

    def propagate() -> Around:
        contexts = [watcher.in_thread() for watcher in watchers]

        @contextmanager
        def around() -> Iterator[None]:
            with ExitStack() as stack:
                for context in contexts:
                    stack.enter_context(context())
                yield

        return around

    return propagate
