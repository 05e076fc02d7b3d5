"""What `check` and `lock` work on: the targets of the project's configuration, or the MODEL of the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

from peft_inspect.api import Depth, Report, inspect
from peft_inspect.cli.options import Reporting
from peft_inspect.cli.output import stdout_kept_clean
from peft_inspect.cli.run import inspected
from peft_inspect.config import Config, Target
from peft_inspect.expectations import with_expectations
from peft_inspect.formats import View
from peft_inspect.records import InspectionError, Request


def chosen(config: Config, request: Request, reporting: Reporting) -> tuple[Target, ...]:
    """One target that MODEL names, a MODEL of its own, or all targets; what the command line says wins.

    Raises:
        InspectionError: nothing is named and nothing is configured.
    """
    if request.model is None and request.lora is None:
        targets = tuple(config.targets.values())
        if not targets:
            raise InspectionError(
                "no MODEL: name one, a --lora file that names its base model, or targets in peft-inspect.toml or pyproject.toml"
            )
    elif request.model is not None and request.model in config.targets:
        targets = (config.targets[request.model],)
        request = replace(request, model=None)
    else:
        targets = (config.target(request.model or str(request.lora), request),)
    return tuple(_overridden(target, request, reporting) for target in targets)


def _overridden(target: Target, request: Request, reporting: Reporting) -> Target:
    given = {
        field.name: value
        for field in dataclasses.fields(Request)
        if (value := getattr(request, field.name)) not in (None, False) and value != {}
    }
    return replace(
        target,
        request=replace(target.request, **given),
        select=reporting.select or target.select,
        ignore={**target.ignore, **dict.fromkeys(reporting.ignore, "ignored on the command line")},
        fail_on=reporting.fail_on or target.fail_on,
    )


def inspect_all(
    targets: Sequence[Target], reporting: Reporting, view: View, processes: int
) -> tuple[Mapping[str, Report], Mapping[str, InspectionError]]:
    """The reports by target, and what kept the others from being inspected."""
    if processes == 1 or len(targets) == 1:
        results = {target.name: _here(target, reporting, view) for target in targets}
    else:
        results = _in_processes(targets, reporting, view, processes)
    reports = {name: result for name, result in results.items() if isinstance(result, Report)}
    return reports, {name: result for name, result in results.items() if isinstance(result, InspectionError)}


def _here(target: Target, reporting: Reporting, view: View) -> Report | InspectionError:
    try:
        report = inspected(target.request, replace(reporting, select=target.select, ignore=target.ignore), view)
    except InspectionError as error:
        return error
    return with_expectations(report, target.expect)


def _in_processes(targets: Sequence[Target], reporting: Reporting, view: View, processes: int) -> dict[str, Report | InspectionError]:
    # Fresh processes: a forked one would share locks of torch's thread pools, and one target's code is no business of the next.
    with stdout_kept_clean(), ProcessPoolExecutor(min(processes, len(targets)), get_context("spawn")) as pool:
        running = {target.name: pool.submit(_inspected, target, view.command, verify=reporting.verify) for target in targets}
        return {name: _result(name, future) for name, future in running.items()}


def _result(name: str, future: Future[Report]) -> Report | InspectionError:
    try:
        return future.result()
    except InspectionError as error:
        return error
    except Exception as error:  # the process died: killed for its memory, for instance
        return InspectionError(f"{name} could not be inspected: {type(error).__name__}: {error}")


def _inspected(target: Target, command: Depth, *, verify: bool) -> Report:
    """In a process of its own."""
    try:
        report = inspect(target.request, command, select=target.select, ignore=target.ignore, verify=verify)
    except SystemExit as error:  # the target's code ends the process: that must not pass for a verdict
        raise InspectionError(
            f"{target.request.model} ended the process with sys.exit({error.code!r}) before it could be inspected"
        ) from None
    return with_expectations(report, target.expect)
