"""The way from the adapter layers to the loss is cut by a step without a derivative.

argmax, sampling, a comparison or an index lets values through and no gradient; rounding and
signs let a gradient through that is zero everywhere.

Use a differentiable relaxation (softmax, Gumbel-softmax, straight-through), or a policy
gradient on the log-probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from peft_inspect.records import Finding, Severity, Unexplained, by_place
from peft_inspect.rules.examples import squared_output
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import agreed, at_line, counted

_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "isclose"})


def check(left: Unexplained) -> Iterator[Finding]:
    """Cuts of this kind, grouped by the function that makes them."""
    trace = left.trace
    cuts = [cut for cut in trace.cuts if cut.kind in ("non-differentiable", "zero-derivative") and left.of(cut.layers)]
    for source, of_place in by_place(cuts):
        layers = left.of(layer for cut in of_place for layer in cut.layers)
        operations = sorted({cut.operation for cut in of_place})
        named = ", ".join(f"the comparison {name}" if name in _COMPARISONS else name for name in operations)
        yield RULE.finding(
            f"the output of {counted(len(set(layers)), 'adapter layer')} reaches the loss only through {named}, which "
            f"{agreed(len(operations), 'passes', 'pass')} no gradient",
            layers,
            source=source,
            facts={"operations": operations},
            fix=at_line(
                source, "replace the step by a differentiable one: softmax or a straight-through estimate, or train on log-probabilities"
            ),
        )


def broken() -> Example:
    """Tokens are picked by argmax and embedded again."""
    return _pipeline(lambda scores, scorer: scorer(scores.argmax(dim=-1)))


def fixed() -> Example:
    """A softmax over the tokens keeps the graph."""
    return _pipeline(lambda scores, scorer: scores.softmax(dim=-1) @ scorer.weight)


def _pipeline(scored: Callable[[Any, Any], Any]) -> Example:
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Pipeline(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = get_peft_model(nn.Sequential(nn.Linear(8, 8)), LoraConfig(target_modules=["0"]))
            self.scorer = nn.Embedding(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return scored(self.generator(x), self.scorer)

    return Example(Pipeline(), {"x": torch.randn(2, 8)}, loss=squared_output)


RULE = Rule(
    "PI306",
    "non-differentiable-step",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.CUT,
    gives_way_to=("PI305",),
    because="Behind a cut it does not matter what else is on the way.",
)
