"""The layer ran with gradients on, and what the loss uses does not depend on its output.

The last vision layer when features are taken from the one before it
(`vision_feature_layer=-2`), a pooler under a token loss, the other half of a dual encoder, the half of
the last joint attention block whose output is thrown away.
Nothing is broken, and nothing trains there. A layer whose weight is read directly belongs here too
where nothing uses what is made of it: calling the layer instead would train it no more.

Leave these layers out of `target_modules`, or use their output in the loss. DDP needs
`find_unused_parameters` as long as they stay.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Severity, Unexplained, modules_of
from peft_inspect.rules.examples import squared_output
from peft_inspect.rules.experts import got_no_token
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import counted


def check(left: Unexplained) -> Iterator[Finding]:
    """Layers that ran in order, whose data does not flow into the loss; a checkpoint around them may hand them gradients of zeros."""
    trace = left.trace
    silent = {layer.path for layer in left.dead} | set(left.of(trace.dead_after_perturbing))
    unused = [layer for layer in trace.structure.adapter_layers if layer.active and layer.path in trace.unused & silent]
    layers = [layer for layer in unused if trace.structure.trainable(layer) and not got_no_token(trace, layer.path)]
    if layers:
        yield RULE.finding(
            f"the loss does not depend on the output of {counted(len(modules_of(layers)), 'adapter layer')}: nothing trains there",
            modules_of(layers),
            source=next((birth.source for birth in trace.zero_births if trace.unused.issuperset(birth.layers)), None),
            facts={"loss": trace.loss.origin},
            fix="leave these layers out of target_modules (exclude_modules), or use their output in the loss",
        )


def broken() -> Example:
    """Features are taken before the last layer."""
    return _encoder("0", "1", "2")


def fixed() -> Example:
    """The last layer is left out."""
    return _encoder("0", "1")


def _encoder(*target_modules: str) -> Example:
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            states = [x]
            for layer in self.layers:
                states.append(layer(states[-1]))
            return states[-2]

    return Example(
        get_peft_model(Encoder(), LoraConfig(target_modules=list(target_modules))), {"x": torch.randn(2, 8)}, loss=squared_output
    )


RULE = Rule(
    "PI308",
    "output-unused",
    Severity.WARNING,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.UNUSED,
)
