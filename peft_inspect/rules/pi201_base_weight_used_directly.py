"""An operation read the base weight of an adapter layer instead of calling the layer.

PEFT forwards `.weight` of an adapter layer to the frozen base weight. Code that multiplies by
it (`F.linear(x, self.out_proj.weight)`, `nn.MultiheadAttention`, a fused kernel or fused
loss, the fast path of `nn.TransformerEncoder` in eval, `embedding.weight[ids]`) computes
with the base model alone: the adapter is there, and it is never part of the computation.

Call the module (`self.out_proj(x)`), target a module whose forward is called (for
`nn.MultiheadAttention` the attention module itself), or leave this one out of
`target_modules`.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Remedy, Severity, Trace, by_place
from peft_inspect.rules.examples import on_two_layers
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import agreed, passed_by


def check(trace: Trace) -> Iterator[Finding]:
    """Reads outside the layer, grouped by the function that makes them."""
    dead, adapted = trace.unreached, {layer.path for layer in trace.structure.adapter_layers}
    uses = [use for use in trace.weight_uses if use.layer in dead or (use.layer in adapted and not use.reference)]
    uses = [use for use in uses if not use.in_tie and use.layer not in trace.unused]
    for source, of_place in by_place(uses):
        layers = list(dict.fromkeys(use.layer for use in of_place))
        operations = sorted({use.operation for use in of_place})
        partly = sum(layer not in dead for layer in layers)
        also = (
            f"; {partly} of them {agreed(partly, 'trains only through its', 'train only through their')} other calls"
            if partly
            else ": the adapter is not part of the computation"
        )
        yield RULE.finding(
            f"the base weights of {passed_by(trace.structure, layers)} are read directly by {', '.join(operations)}{also}",
            layers,
            source=source,
            facts={
                "operations": operations,
                "reads": sum(use.count for use in of_place),
                "parameters": sorted({use.parameter for use in of_place}),
            },
            fix="call the module instead of using its .weight, or take it out of target_modules and target a module whose forward is called",
            remedy=Remedy.THROUGH_ADAPTER,
        )


def broken() -> Example:
    """An output head that multiplies by the weight itself."""
    from torch.nn import functional as F

    return on_two_layers(lambda model, x: F.linear(model.inner(x), model.out.weight))


def fixed() -> Example:
    """The same head calls the module."""
    return on_two_layers(lambda model, x: model.out(model.inner(x)))


RULE = Rule("PI201", "base-weight-used-directly", Severity.ERROR, over=Trace, check=check, broken=broken, fixed=fixed, tier=Tier.CAUSE)
