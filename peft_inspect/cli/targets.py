"""What `check` and `lock` work on: the targets of the project's configuration, or the MODEL of the command line."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from peft_inspect.api import Report
from peft_inspect.cli.inspecting import inspected
from peft_inspect.cli.options import Reporting
from peft_inspect.cli.output import stdout_kept_clean
from peft_inspect.cli.processes import inspect_apart
from peft_inspect.cli.progress import progress
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
    if len(targets) == 1:
        results: Mapping[str, Report | InspectionError] = {targets[0].name: _here(targets[0], reporting, view)}
    else:
        with stdout_kept_clean(), progress() as step:
            results = inspect_apart(targets, view.command, processes, verify=reporting.verify, debug=reporting.debug, step=step)
    reports = {name: result for name, result in results.items() if isinstance(result, Report)}
    return reports, {name: result for name, result in results.items() if isinstance(result, InspectionError)}


def _here(target: Target, reporting: Reporting, view: View) -> Report | InspectionError:
    try:
        report = inspected(target.request, replace(reporting, select=target.select, ignore=target.ignore), view)
    except InspectionError as error:
        return error
    return with_expectations(report, target.expect, target.ignore)


def together(troubles: Mapping[str, InspectionError], targets: Sequence[Target], config: Config) -> InspectionError:
    """What went wrong as one error; of several targets, each by its name."""
    if len(targets) > 1:
        messages = [f"{name}: {error}" for name, error in troubles.items()]
    else:
        messages = [f"{error}{_near_target(name, config)}" for name, error in troubles.items()]
    details = [error.detail for error in troubles.values() if error.detail]
    return InspectionError("\n".join(messages), detail="\n".join(details) or None)


def _near_target(model: str, config: Config) -> str:
    """A MODEL that cannot be loaded may be a misspelt target."""
    near = difflib.get_close_matches(model, set(config.targets) - {model}, n=1, cutoff=0.7)
    return f"; or did you mean the target {near[0]!r}?" if near and model not in config.targets else ""
