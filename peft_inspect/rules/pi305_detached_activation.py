"""The way from the adapter layers to the loss is cut by a detach.

`.detach()`, `.data`, a round trip through NumPy or Python lists, `torch.tensor(…)` on
values: what comes out carries the numbers and not the graph. Feature caches from the days of
a frozen encoder do this.

Keep the graph at the line that the finding shows; cache features only while nothing before
the cache trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from peft_inspect.records import Finding, Remedy, Severity, Unexplained, by_place
from peft_inspect.rules.examples import squared_output
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import at_line, counted


def check(left: Unexplained) -> Iterator[Finding]:
    """Cuts of this kind, grouped by the function that makes them."""
    trace = left.trace
    cuts = [cut for cut in trace.cuts if cut.kind in ("detach", "escape") and left.of(cut.layers)]
    for source, of_place in by_place(cuts):
        layers = left.of(layer for cut in of_place for layer in cut.layers)
        yield RULE.finding(
            f"the output of {counted(len(set(layers)), 'adapter layer')} is cut off from the loss by {', '.join(sorted({cut.operation for cut in of_place}))}",
            layers,
            source=source,
            facts={"operations": sorted({cut.operation for cut in of_place})},
            fix=at_line(source, "keep the graph at this line; detach or cache features only while nothing before them is trained"),
            remedy=Remedy.ATTACHED if all(cut.kind == "detach" for cut in of_place) else None,
        )


def broken() -> Example:
    """Features are detached before the head."""
    return _probe(lambda features: features.detach())


def fixed() -> Example:
    """The graph is kept."""
    return _probe(lambda features: features)


def _probe(cached: Callable[[Any], Any]) -> Example:
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            backbone = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
            self.backbone = get_peft_model(backbone, LoraConfig(target_modules=["0", "2"]))
            self.head = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(cached(self.backbone(x)))

    return Example(Probe(), {"x": torch.randn(2, 8)}, loss=squared_output)


RULE = Rule(
    "PI305",
    "detached-activation",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.CUT,
)
