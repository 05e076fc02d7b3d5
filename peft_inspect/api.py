"""The Python API. Every command is one call of this module.

Torch is imported by the first inspection, not by importing this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peft_inspect.inspection import FindingsError, Judging, Report, as_patterns, inspect, inspect_subject
from peft_inspect.records import InspectionError, Pins, Request

if TYPE_CHECKING:
    import torch

    from peft_inspect.formats.tree.drawing import ModelTree
    from peft_inspect.formats.view import Column

__all__ = ["FindingsError", "Report", "check", "gradcheck", "inspect", "tree"]


def check(
    model: torch.nn.Module | str,
    batch: Mapping[str, Any] | None = None,
    *,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    adapter: str | None = None,
    select: Iterable[str] = (),
    ignore: Iterable[str] | Mapping[str, str] = (),
    verify: bool = True,
    pins: Pins | None = None,
) -> Report:
    """Judge a live model by every rule: its structure, one watched batch, and an adapter file if one is named.

    The model is afterwards what it was: parameters, gradients, modes, hooks, buffers, RNG and grad mode.

    Args:
        model: the model as it is trained, wrapped or not; or the name of a target of the project's configuration, which
            then says what its batch, loss and optimizer are.
        batch: keyword inputs of `model.forward`; None makes a batch from its signature and config.
        loss: `loss(model, batch)` returning the tensor that is trained. Default: the output's loss,
            else the sum of its floating outputs.
        optimizer: checked to hold the adapter's parameters; never stepped.
        adapter: a folder or hub id of an adapter; its file is checked against the live adapter layers.
        select: codes, names or prefixes of the rules to judge by. Default: all.
        ignore: likewise, to leave out; a mapping gives the reason of each.
        verify: try the fixes in memory and report `fix_verified`.
        pins: what the model is held to: numbers, and what a lock file says. A target has its own.

    Raises:
        InspectionError: the model could not be inspected, or no target is called so; the message says what to do.
    """
    if isinstance(model, str):
        if batch is not None or loss is not None or optimizer is not None or pins is not None:
            raise InspectionError(f"batch, loss, optimizer and pins of the target {model!r} are those of its configuration")
        return _check_target(model, adapter, select, ignore, verify)
    return _inspect_live(model, batch, loss, optimizer, adapter, Judging.of("check", select, ignore, pins, verify=verify))


def gradcheck(
    model: torch.nn.Module,
    batch: Mapping[str, Any] | None = None,
    *,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    adapter: str | None = None,
    select: Iterable[str] = (),
    ignore: Iterable[str] | Mapping[str, str] = (),
    verify: bool = True,
) -> Report:
    """The gradient part of `check`: which adapter parameters get a gradient, which do not, and why.

    Takes what `check` takes. This asks whether gradients arrive; `torch.autograd.gradcheck` is another
    thing, a finite-difference test of their values.
    """
    return _inspect_live(model, batch, loss, optimizer, adapter, Judging.of("gradcheck", select, ignore, verify=verify))


def tree(
    model: torch.nn.Module,
    *,
    depth: int | None = None,
    match: str | None = None,
    expand: bool = False,
    targets: bool = False,
    columns: Sequence[Column] = ("params",),
    batch: Mapping[str, Any] | None = None,
) -> ModelTree:
    """The wrapper hierarchy of a live model: a rich renderable, plain text by `str()`, and shown by notebooks.

    Args:
        model: wrapped or not.
        depth: levels below the root; None draws all.
        match: a glob on module paths: these, and the way to them.
        expand: repeated blocks one by one, adapter layers with what is inside them.
        targets: add what each entry of the LoRA config reached.
        columns: beside the modules, any of params, memory, dtype, shape, device, rank, adapters, output, macs, path. For the shapes of
            outputs and the multiply-adds one batch runs.
        batch: for these two; None makes one.

    Raises:
        InspectionError: `model` is not a torch.nn.Module, or there is no such column.
    """
    from peft_inspect.formats.tree.drawing import ModelTree
    from peft_inspect.formats.view import COLUMNS, MEASURED, View

    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise InspectionError(f"there is no column {unknown[0]!r}: columns takes any of {', '.join(COLUMNS)}")
    view = View("tree", depth=depth, match=match, expand=expand, targets=targets, columns=tuple(columns))
    judging = Judging.of("tree", verify=False, activations=not MEASURED.isdisjoint(columns))
    return ModelTree(_inspect_live(model, batch, None, None, None, judging), view)


def _check_target(name: str, adapter: str | None, select: Iterable[str], ignore: Iterable[str] | Mapping[str, str], verify: bool) -> Report:
    from pathlib import Path

    from peft_inspect.project.config import read_config
    from peft_inspect.project.targets import chosen, inspect_targets

    project = read_config(Path.cwd())
    reasons = ignore if isinstance(ignore, Mapping) else dict.fromkeys(as_patterns(ignore), "ignored by the caller")
    targets = chosen(project, Request(model=name, adapter=adapter), as_patterns(select), reasons)
    inspected = inspect_targets(project, targets, "check", verify=verify)
    if inspected.failure:
        raise inspected.failure
    return inspected.reports[name]


def _inspect_live(
    model: torch.nn.Module,
    batch: Mapping[str, Any] | None,
    loss: Callable[[Any, Any], torch.Tensor] | None,
    optimizer: torch.optim.Optimizer | None,
    adapter: str | None,
    judging: Judging,
) -> Report:
    from peft_inspect.load import live

    return inspect_subject(live(model, batch=batch, loss=loss, optimizer=optimizer, adapter=adapter), judging)
