"""The module around an adapter layer ran, and the adapter layer did not.

No read of its base weight, no call of its base layer and no copy shows why: a captured or
compiled graph, weights that were absorbed into another tensor before, or a custom kernel
does its work. The finding says what ran around it. A layer that the code calls for other
inputs is not meant: that one is only not exercised (PI208).

Look at the forward of the parent named in the finding; if the layer's work is done
elsewhere, take it out of `target_modules`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peft_inspect.records import Finding, Severity, Unexplained, modules_of
from peft_inspect.rules.examples import on_two_layers
from peft_inspect.rules.experts import unrouted
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import agreed, counted


def check(left: Unexplained) -> Iterator[Finding]:
    """Dead layers without a call whose parent ran."""
    trace = left.trace
    layers = [
        layer
        for layer in trace.dead
        if not trace.calls_of.get(layer.path)
        and trace.topmost_idle(layer.path) == layer.path
        and layer.path not in trace.waiting
        and not unrouted(trace, layer.path)
    ]
    if layers:
        paths = modules_of(layers)
        parents = sorted({path.rpartition(".")[0] for path in paths})
        kinds = sorted({trace.structure.module[parent].type for parent in parents if parent in trace.structure.module})
        yield RULE.finding(
            f"nothing called {counted(len(paths), 'adapter layer')} though the module around {agreed(len(paths), 'it', 'them')} ran ({', '.join(kinds)})",
            paths,
            facts={"parents": parents},
            fix="look at the parent's forward: call the module there, or take it out of target_modules",
        )


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
