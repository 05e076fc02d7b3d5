"""Several targets, each inspected in a process of its own.

One target's modules, patches and settings are no business of the next, and a process that dies takes no other with it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import forkserver, get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from threading import Thread

from peft_inspect.inspection import Report
from peft_inspect.library_warnings import hide_deprecations
from peft_inspect.project.config import Target
from peft_inspect.project.own_process import deaf_to_interrupts, ended, leave, result_of
from peft_inspect.records import InspectionError

_HEAVY = ["peft_inspect.load", "peft_inspect.structure", "peft_inspect.trace", "peft_inspect.fixes", "peft_inspect.rules"]


def _context() -> BaseContext:
    """Processes that begin with nothing but the imports, which are done once where the system can fork.

    Never a fork of this process: it would share locks of torch's thread pools.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(_HEAVY)
    return context


def inspect_apart(
    targets: Sequence[Target], inspect: Callable[[Target], Report], processes: int, *, debug: bool, step: Callable[[str], None]
) -> Mapping[str, Report | InspectionError]:
    """The report of each target, or what kept it from being inspected.

    Args:
        targets: to be inspected.
        inspect: does it; has to be something that can be sent to a process.
        processes: at most so many at a time.
        debug: keep the traceback of an error that is ours.
        step: told what is being done.
    """
    context = _context()
    waiting = list(targets)
    running: dict[Connection, tuple[Target, BaseProcess]] = {}
    results: dict[str, Report | InspectionError] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                target = waiting.pop(0)
                connection, process = _started(context, target, inspect, debug=debug)
                running[connection] = target, process
            names = ", ".join(target.name for target, _ in running.values())
            step(f"inspecting {names} ({len(results)} of {len(targets)} done)")
            ready = wait([*running, *(process.sentinel for _, process in running.values())])
            for connection, (target, process) in [*running.items()]:
                if connection in ready or process.sentinel in ready:
                    del running[connection]
                    results[target.name] = _received(target, connection, process)
    finally:
        for _, process in running.values():
            process.kill()
        _stop_server()
    return {target.name: results[target.name] for target in targets}


def _started(context: BaseContext, target: Target, inspect: Callable[[Target], Report], *, debug: bool) -> tuple[Connection, BaseProcess]:
    receiving, sending = context.Pipe(duplex=False)
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]  # of every context
        target=_inspect, args=(sending, target, inspect, debug)
    )
    if sys.platform == "linux":
        with deaf_to_interrupts():
            forkserver.ensure_running()
        process.start()  # waits for the imports of the server
    else:
        with deaf_to_interrupts():
            process.start()
    sending.close()  # or the end of the process would not end the pipe
    return receiving, process


def _stop_server() -> None:
    """Its own end takes seconds, of importing or of leaving, in which it keeps the pipes open that it was given."""
    server = getattr(forkserver, "_forkserver", None)
    pid = getattr(server, "_forkserver_pid", None)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def _received(target: Target, connection: Connection, process: BaseProcess) -> Report | InspectionError:
    name = target.request.model or target.name
    try:
        result: Report | InspectionError | None = connection.recv() if connection.poll() else None
    except Exception:  # it ended while it wrote, or what it ran wrote there as well
        result = None
    finally:
        connection.close()
    process.join()
    return InspectionError(ended(name, process.exitcode or 0)) if result is None else result


def _inspect(connection: Connection, target: Target, inspect: Callable[[Target], Report], debug: bool) -> None:
    """In the process of the target."""
    Thread(target=_end_with_parent, daemon=True).start()
    hide_deprecations()
    result, trace = result_of(target.request.model or target.name, partial(inspect, target))
    if isinstance(result, InspectionError) and debug and result.detail is None:
        result.detail = trace
    connection.send(result)
    leave()


def _end_with_parent() -> None:
    """A command that was killed leaves no inspection running."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
