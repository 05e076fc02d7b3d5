"""The module around an adapter layer ran, and the adapter layer did not.

No read of its base weight, no call of its base layer and no copy shows why: a captured or
compiled graph, weights that were fused or absorbed into another tensor before, or a custom kernel
does its work. The finding says what ran around it, and where a copy of its weights is used. A layer that the code calls for other
inputs is not meant: that one is only not exercised (PI208).

Look at the forward of the parent named in the finding; if the layer's work is done
elsewhere, take it out of `target_modules`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from peft_inspect.records import AdapterLayerInfo, Finding, Remedy, Severity, StandIn, Unexplained, modules_of
from peft_inspect.rules.examples import on_two_layers
from peft_inspect.rules.experts import unrouted
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import agreed, at_line, counted


def check(left: Unexplained) -> Iterator[Finding]:
    """Dead layers without a call whose parent ran, or in whose place a copy of their weights works; grouped by what does their work."""
    trace = left.trace
    copied = {path for stand_in in trace.stand_ins if stand_in.how != "beside" for path in stand_in.layers}
    layers = [layer for layer in left.dead if not trace.calls_of.get(layer.path) and not unrouted(trace, layer.path)]
    layers = [
        layer
        for layer in layers
        if layer.path in copied or (trace.topmost_idle(layer.path) == layer.path and layer.path not in trace.waiting)
    ]
    found = {path: stand_in for stand_in in trace.stand_ins for path in stand_in.layers}
    places: dict[tuple[object, ...], list[AdapterLayerInfo]] = defaultdict(list)
    for layer in layers:
        stand_in = found.get(layer.path)
        places[() if stand_in is None else (stand_in.source, stand_in.operation, stand_in.how)].append(layer)
    for of_place in places.values():
        paths = modules_of(of_place)
        parents = sorted({path.rpartition(".")[0] for path in paths})
        kinds = sorted({trace.structure.module[parent].type for parent in parents if parent in trace.structure.module})
        working = list(dict.fromkeys(found[path] for path in paths if path in found))
        source = working[0].source if working else None
        yield RULE.finding(
            f"nothing called {counted(len(paths), 'adapter layer')} though {_around(working, kinds, len(paths))}{_said(working)}",
            paths,
            source=source,
            facts={"parents": parents, "in_their_place": [stand_in.what for stand_in in working]},
            remedy=Remedy.THROUGH_COPY if working and working[0].matrix else None,
            fix=_fix(working) if working else "look at the parent's forward: call the module there, or take it out of target_modules",
        )


def _around(working: list[StandIn], kinds: list[str], number: int) -> str:
    if working and working[0].how == "output":
        return "their work is used"
    return f"the module around {agreed(number, 'it', 'them')} ran ({', '.join(kinds)})"


def _fix(working: list[StandIn]) -> str:
    if working[0].how == "output":
        return "run these layers in every step: keep what they give only while nothing in them is trained"
    return at_line(
        working[0].source, "call the module there, so that its adapter takes part, or fuse weights only after training (merge_and_unload)"
    )


def _said(working: list[StandIn]) -> str:
    if not working:
        return ""
    names = working[0].what + (f" and {len(working) - 1} more" if len(working) > 1 else "")
    if working[0].how == "output":
        return f": what they gave before the step at the line shown was kept, and is used again ({working[0].operation})"
    how = f"{agreed(len(working), 'holds', 'hold')} a copy of their weights and " if working[0].how == "copy" else ""
    return f": {names}, which {how}{agreed(len(working), 'does', 'do')} their work ({working[0].operation})"


def broken() -> Example:
    """The parent absorbed the weight into a constant of its own before the wrapping."""
    import torch

    def absorbed(model: Any) -> None:
        model.absorbed = model.out.weight.detach().t() @ torch.eye(4)

    return on_two_layers(lambda model, x: model.inner(x) @ model.absorbed, before_wrapping=absorbed)


def fixed() -> Example:
    """The parent calls the module."""
    return on_two_layers(lambda model, x: model.out(model.inner(x)))


RULE = Rule(
    "PI204",
    "adapter-layer-not-called",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.SYMPTOM,
)
