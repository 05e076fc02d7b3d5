"""Adapter layers got no gradient, and no other rule explains it.

They are trainable and they ran, and no gradient came back. A custom autograd function that returns
none is one way to get here, an operation of a library that registered no derivative another, and so is a
kernel that is given addresses and fills a fresh tensor: the finding then shows the line that calls it.
Else it says what was seen.

Give what runs at that line a backward, or use the path of that library that has one. If you find another
cause, please report it: it deserves a rule of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from peft_inspect.records import AdapterLayerInfo, Finding, Origin, Severity, Source, StandIn, Trace, Unexplained, modules_of
from peft_inspect.rules.examples import on_two_layers
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import at_line, counted

_REASONS: Mapping[str, str] = {
    "no-gradient-returned": "because the backward of {operation} returns none",
    "no-backward": "because {operation} has no backward: it was registered without a derivative",
    "raw-memory": "because their values leave torch there by address ({operation}): what a kernel makes of them comes back without a graph",
    "untraced": "though what they compute moves the loss: it comes back to torch there as a fresh tensor, made by code that torch does not see",
}


def check(left: Unexplained) -> Iterator[Finding]:
    """Whatever is left of the dead layers that ran, grouped by the custom autograd function that keeps their gradient back."""
    trace = left.trace
    places: dict[tuple[str, Source | None], list[AdapterLayerInfo]] = defaultdict(list)
    for layer in left.dead:
        used = any(layer.adapter in call.active or not call.active for call in trace.calls_of.get(layer.path, ()))
        if trace.structure.trainable(layer) and used:  # the step may have trained another adapter
            places[_seen(trace, layer)].append(layer)
    for (reason, source), layers in places.items():
        calls = [call for layer in layers for call in trace.calls_of[layer.path]]
        yield RULE.finding(
            f"{counted(len(modules_of(layers)), 'adapter layer')} ran and got no gradient, {reason}",
            modules_of(layers),
            source=source,
            origin=Origin("adapter-config", ("module_dropout",), layers[0].adapter, exact=True) if source is None else None,
            facts={
                "calls": len(calls),
                "calls_with_gradients_on": sum(call.region is None for call in calls),
                "outputs_requiring_grad": sum(call.output_requires_grad for call in calls),
                "loss_has_graph": trace.loss.has_graph,
            },
            fix=_fix(trace, layers[0], source),
        )


def _copy(trace: Trace, layer: AdapterLayerInfo) -> StandIn | None:
    """The copies of its weights that it ran with."""
    return next((stand_in for stand_in in trace.stand_ins if stand_in.how == "copy" and layer.path in stand_in.layers), None)


def _fix(trace: Trace, layer: AdapterLayerInfo, source: Source | None) -> str:
    if (layer.path, layer.adapter) in trace.switched_since:
        return "switch adapters only after the backward: it runs in the state that they are in then"
    if source is None:
        return "follow the output of these layers to the loss: something between them returns no gradient"
    if _copy(trace, layer) is not None:
        return "give the call the weights themselves, as they are now: dict(model.named_parameters())"
    if any(cut.called is not None and cut.source == source for cut in trace.cuts):
        return at_line(source, "return a gradient there for each input that requires one, in the place of its None")
    return at_line(source, "give what runs at this line a backward (an autograd function around the kernel), or use the path that has one")


def _seen(trace: Trace, layer: AdapterLayerInfo) -> tuple[str, Source | None]:
    """What was seen of the reason, and the line that calls the function at fault."""
    if (layer.path, layer.adapter) in trace.switched_since:
        how = "another adapter was made active, or adapters were disabled, between their forward and the backward, which freezes them"
        return f"because {how}", trace.switched_since[layer.path, layer.adapter]
    calls = trace.training_calls(layer)
    if calls and not any(layer.adapter in call.adapter_used for call in calls):
        if (copy := _copy(trace, layer)) is not None:
            return (
                f"because what ran in the place of their weights ({copy.operation}) are copies, whose gradients are nobody's",
                copy.source,
            )
        dropped = next(
            (adapter.config.get("module_dropout") for adapter in trace.structure.adapters if adapter.name == layer.adapter), None
        )
        return "because nothing read their adapter weights while they ran" + (f" (module_dropout={dropped})" if dropped else ""), None
    cuts = {cut.kind: cut for cut in trace.cuts if layer.path in cut.layers and cut.kind in _REASONS}
    untraced = cuts.pop("untraced", None)
    for kind, cut in cuts.items():
        called = f" (called at {cut.called})" if cut.called is not None else ""
        return _REASONS[kind].format(operation=cut.operation + called), cut.source
    regions = [call.region for call in trace.calls_of[layer.path] if call.phase == "forward"]
    inside = [region for region in regions if region is not None and region.kind == "autograd-function"]
    if inside and len(inside) == len(regions):
        return "inside a custom autograd function whose backward computes none for what it ran", inside[-1].source
    if untraced is not None:
        return _REASONS["untraced"], untraced.source
    return "for a reason that no rule names", None


def broken() -> Example:
    """A custom autograd function that forgets its gradient."""
    return _doubling(lambda _: None)


def fixed() -> Example:
    """The function returns its gradient."""
    return _doubling(lambda gradient: gradient * 2)


def _doubling(of_input: Callable[[Any], Any]) -> Example:
    import torch

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, *gradient: Any) -> Any:
            return of_input(gradient[0])

    return on_two_layers(lambda model, x: model.out(Doubled.apply(model.inner(x))))


RULE = Rule(
    "PI309",
    "no-gradient",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.SYMPTOM,
    gives_way_to=("PI207",),
    because="While another adapter should be active, this one may run for reference.",
)
