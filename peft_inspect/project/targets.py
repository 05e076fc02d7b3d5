"""The targets of a project's configuration, or the MODEL that is named in their place: chosen, inspected, judged together."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from peft_inspect.inspection import Depth, Report, Step, inspect
from peft_inspect.lock import FILE, read_lock
from peft_inspect.project.config import Config, Target, read_config
from peft_inspect.reading import user_path
from peft_inspect.records import InspectionError, Lock, Pins, Request

_NAME = re.compile(r"[^:/\\]+")  # of a target, unlike most forms of MODEL


def chosen(
    config: Config,
    request: Request,
    select: Iterable[str] = (),
    ignore: Iterable[str] | Mapping[str, str] = (),
    fail_on: str | None = None,
) -> tuple[Target, ...]:
    """One target that MODEL names, a MODEL of its own, or all targets; what is given here wins over the configuration.

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
    reasons = ignore if isinstance(ignore, Mapping) else dict.fromkeys(ignore, "ignored on the command line")
    given = {
        field.name: value
        for field in dataclasses.fields(Request)
        if (value := getattr(request, field.name)) not in (None, False) and value != {}
    }
    return tuple(
        replace(
            target,
            request=replace(target.request, **given),
            select=tuple(select) or target.select,
            ignore={**target.ignore, **reasons},
            fail_on=fail_on or target.fail_on,
        )
        for target in targets
    )


def one_target(
    request: Request, depth: Depth, select: Iterable[str] = (), ignore: Iterable[str] = (), fail_on: str | None = None
) -> Target:
    """What a command for one model inspects: the configured target that MODEL names, the only one where none is named, or MODEL itself.

    Raises:
        InspectionError: nothing is named, and several targets are configured or none.
    """
    name = request.model
    if (name is None and request.lora is None) or (name is not None and _NAME.fullmatch(name) and not user_path(name).exists()):
        config = read_config(Path.cwd())
        if name is None and len(config.targets) > 1:
            raise InspectionError(f"{depth} inspects one model: name one of the targets {', '.join(config.targets)}, or another MODEL")
        if name is None or name in config.targets:
            return chosen(config, request, select, ignore, fail_on)[0]
    return chosen(Config(), request, select, ignore, fail_on)[0]


def inspect_target(
    target: Target,
    depth: Depth,
    *,
    lock: Mapping[str, Any] | None = None,
    verify: bool = True,
    activations: bool = False,
    step: Step | None = None,
) -> Report:
    """The report of one target.

    Args:
        target: what to inspect, and what to judge by.
        depth: how far.
        lock: the content of a lock file, where the target is held to one.
        verify: whether fixes are tried.
        activations: whether what modules hand on is measured.
        step: told what is being done.

    Raises:
        InspectionError: it could not be inspected.
    """
    said = None if lock is None else Lock(target.name, lock["targets"].get(target.name), lock.get("environment", {}))
    pins = Pins(target.expect, said)
    return inspect(
        target.request,
        depth,
        select=target.select,
        ignore=target.ignore,
        verify=verify,
        pins=pins,
        activations=activations,
        step=step,
    )


@dataclass(frozen=True)
class Inspected:
    """What became of each target."""

    config: Config
    targets: tuple[Target, ...]
    reports: Mapping[str, Report]
    failed: Mapping[str, InspectionError]  # by the name of a target that could not be inspected

    @property
    def failure(self) -> InspectionError | None:
        """What could not be inspected, as one error; of several targets, each by its name."""
        return self._together(self.failed)

    @property
    def incomplete(self) -> InspectionError | None:
        """What could not be inspected, and which rules crashed."""
        crashed = {name: InspectionError(report.incomplete) for name, report in self.reports.items() if report.incomplete}
        return self._together({**self.failed, **crashed})

    def _together(self, troubles: Mapping[str, InspectionError]) -> InspectionError | None:
        if not troubles:
            return None
        if len(self.targets) > 1:
            messages = [f"{name}: {error}" for name, error in troubles.items()]
        else:
            messages = [f"{error}{_near_target(name, self.config)}" for name, error in troubles.items()]
        details = [error.detail for error in troubles.values() if error.detail]
        return InspectionError("\n".join(messages), detail="\n".join(details) or None)

    @property
    def red(self) -> tuple[str, ...]:
        """The targets with a finding at or above what they fail on."""
        limits = {target.name: target.fail_on or "error" for target in self.targets}
        return tuple(name for name, report in self.reports.items() if report.at_or_above(limits[name]))


def inspect_targets(
    config: Config,
    targets: tuple[Target, ...],
    depth: Depth,
    *,
    locked: bool = False,
    verify: bool = True,
    processes: int = 1,
    debug: bool = False,
    step: Step | None = None,
) -> Inspected:
    """Inspect one target here, several each in a process of its own.

    Args:
        config: of the project.
        targets: of it, or of no configuration.
        depth: how far.
        locked: hold them to the lock file.
        verify: whether fixes are tried.
        processes: at most so many at a time.
        debug: keep the tracebacks of errors that are ours.
        step: told what is being done.

    Raises:
        InspectionError: the lock file is missing or damaged.
    """
    lock = _lock(config) if locked else None
    one = partial(inspect_target, depth=depth, lock=lock, verify=verify)
    if len(targets) > 1:
        from peft_inspect.project.processes import inspect_apart

        results = inspect_apart(targets, one, processes, debug=debug, step=step or (lambda _: None))
    else:
        results = {target.name: _or_error(target, partial(one, step=step)) for target in targets}
    return Inspected(
        config,
        targets,
        {name: result for name, result in results.items() if isinstance(result, Report)},
        {name: result for name, result in results.items() if isinstance(result, InspectionError)},
    )


def _or_error(target: Target, inspected: Callable[[Target], Report]) -> Report | InspectionError:
    try:
        return inspected(target)
    except InspectionError as error:
        return error


def _lock(config: Config) -> Mapping[str, Any]:
    path = lock_file(config)
    if not path.is_file():
        raise InspectionError(f"there is no {path}: write it with `peft-inspect lock`, with the same arguments")
    return read_lock(path)


def lock_file(config: Config) -> Path:
    """Beside the configuration, else in the working directory."""
    return (config.file.parent if config.file else Path()) / FILE


def _near_target(model: str, config: Config) -> str:
    """A MODEL that cannot be loaded may be a misspelt target."""
    near = difflib.get_close_matches(model, set(config.targets) - {model}, n=1, cutoff=0.7)
    return f"; or did you mean the target {near[0]!r}?" if near and model not in config.targets else ""
