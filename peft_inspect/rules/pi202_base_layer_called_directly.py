"""The base layer ran without the adapter layer around it.

PEFT puts its layer in the place of the original one; the original becomes `base_layer`
inside. Whoever kept a reference to the original from before the wrapping (a list, a dict, a
closure, a second attribute), asks for `get_base_layer()`, or replaced the layer's `forward`,
calls the base alone. So it is with the base model of a prompt-learning method: only the
PeftModel puts the prompt before its inputs.

Look the module up when it is called (`getattr(self, name)`), or build such tables after
`get_peft_model`. References to *containers* are fine: PEFT swaps the layers inside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peft_inspect.records import Finding, Remedy, Severity, Source, Trace, by_place
from peft_inspect.rules.examples import on_two_layers
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import agreed, counted, passed_by


def check(trace: Trace) -> Iterator[Finding]:
    """Calls around the adapter layer, grouped by the function that makes them."""
    dead, adapted = trace.unreached, {layer.path for layer in trace.structure.adapter_layers}
    used = {path for path, calls in trace.calls_of.items() if any(call.adapter_used for call in calls)}
    calls = [call for call in trace.base_calls if call.layer in dead or (call.layer in adapted and not call.reference)]
    calls = [call for call in calls if not (call.patched and call.layer in used)]
    for source, of_place in by_place(calls):
        layers = list(dict.fromkeys(call.layer for call in of_place))
        partly = sum(layer not in dead for layer in layers)
        if all(trace.structure.is_prompt(layer) for layer in layers):
            yield _without_prompt(layers, source)
            continue
        how = "a forward that is not PEFT's" if of_place[0].patched else "this line"
        also = f" ({partly} of them {agreed(partly, 'trains through its', 'train through their')} other calls)" if partly else ""
        yield RULE.finding(
            f"{how} calls the base of {passed_by(trace.structure, layers)} directly: the adapter is skipped{also}",
            layers,
            source=source,
            facts={"calls": sum(call.count for call in of_place), "replaced_forward": of_place[0].patched},
            fix="call the adapter layer: look the module up at call time, or keep references only after get_peft_model",
            remedy=Remedy.THROUGH_LAYER,
        )


def _without_prompt(layers: list[str], source: Source | None) -> Finding:
    return RULE.finding(
        f"this line calls the base model directly: the prompt of {counted(len(layers), 'adapter')} is not put before its inputs",
        layers,
        source=source,
        fix="call the PeftModel, which makes the prompt and puts it before the inputs",
        remedy=Remedy.THROUGH_LAYER,
    )


def broken() -> Example:
    """A table of layers, made before the wrapping, is what forward uses."""
    return on_two_layers(lambda model, x: model.table[1](model.table[0](x)), before_wrapping=_keep_table)


def fixed() -> Example:
    """The layers are looked up when they are needed."""
    return on_two_layers(lambda model, x: model.out(model.inner(x)), before_wrapping=_keep_table)


def _keep_table(model: Any) -> None:
    model.table = [model.inner, model.out]


RULE = Rule("PI202", "base-layer-called-directly", Severity.ERROR, over=Trace, check=check, broken=broken, fixed=fixed, tier=Tier.CAUSE)
