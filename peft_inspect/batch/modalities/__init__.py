"""One file, one modality. Every module of this package with `MODALITIES` is found here and nowhere else listed."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from peft_inspect.batch.modalities.modality import Modality, first_accepted
from peft_inspect.batch.plan import Layout, Placeholder, Plan

__all__ = ["Modality", "all_modalities", "give_all", "placeholder_tokens"]

_GUESS = 2  # placeholders where no method of the model counts features; a trial corrects it
_MORE = 4  # layouts that a trial of the whole forward goes on with


@cache
def all_modalities() -> tuple[Modality, ...]:
    """Every modality, by its file."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return tuple(modality for module in modules for modality in getattr(module, "MODALITIES", ()))


def give_all(plan: Plan) -> None:
    """Give every modality that the forward takes, and note the placeholders that its features need."""
    for modality in all_modalities():
        if plan.wants(modality.argument):
            _give(plan, modality)


def _give(plan: Plan, modality: Modality) -> None:
    layouts = list(modality.layouts(plan))
    token = modality.token(plan)
    if not layouts:
        return
    if token is None or "input_ids" not in plan.receiver.parameters:
        _use(plan, modality, layouts[0], layouts[1:])
        return
    readers = modality.readers(plan)
    if not readers:
        _use(plan, modality, layouts[0], layouts[1:])
        count = _GUESS * plan.size
    else:
        whole = [layout for layout in layouts if None not in layout.values()]
        accepted = first_accepted(plan, readers, whole)
        if isinstance(accepted, str):
            plan.notes.append(f"{modality.name} not given: {modality.methods[0]} took none of the layouts tried ({accepted})")
            return
        layout, count = accepted
        after = next(index for index, tried in enumerate(whole, start=1) if tried is layout)
        _use(plan, modality, layout, [*(tried for tried in layouts if None in tried.values()), *whole[after : after + _MORE]])
    plan.placeholders.append(Placeholder(modality.name, token, count // plan.size, *modality.around(plan), counted=bool(readers)))


def _use(plan: Plan, modality: Modality, layout: Layout, others: list[Layout]) -> None:
    """Give this layout; a trial may go on with the others, and after them with this one again."""
    plan.modalities[modality.argument] = modality.name
    plan.inputs.update(layout)
    if others:
        names = {name for other in others for name in other}
        plan.alternatives += [*others, {**dict.fromkeys(names), **layout}]


def placeholder_tokens(plan: Plan) -> set[int]:
    """Tokens that stand for the features of another modality; only where the forward takes one."""
    found = {modality.token(plan) for modality in all_modalities() if modality.argument in plan.receiver.parameters}
    return {token for token in found if token is not None}
