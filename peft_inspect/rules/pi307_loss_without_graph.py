"""The loss itself has no graph.

It was made anew from numbers (`torch.tensor(loss.item(), requires_grad=True)`), or detached.
`backward()` then succeeds and reaches nothing. The error that this silences, "element 0 of
tensors does not require grad", was right.

Return the loss as it was computed.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Severity, Unexplained, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule, Tier


def check(left: Unexplained) -> Iterator[Finding]:
    """A loss made from numbers or detached, while layers ran that could train."""
    trace = left.trace
    layers = [layer for layer in left.dead if trace.training_calls(layer) and trace.structure.trainable(layer)]
    if not trace.loss.has_graph and trace.loss.source is not None and layers:
        yield RULE.finding(
            f"the loss has no graph: it was made anew from numbers, so backward() reaches no adapter layer ({len(modules_of(layers))} ran)",
            modules_of(layers),
            source=trace.loss.source,
            facts={"loss": trace.loss.origin},
            fix="return the loss as it was computed, without .item(), .detach() or torch.tensor()",
        )


def broken() -> Example:
    """An error message, silenced."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model

    def loss(model: Any, batch: Any) -> torch.Tensor:
        value = model(**batch).loss
        return torch.tensor(value.item(), requires_grad=True)

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch(), loss=loss)


def fixed() -> Example:
    """The loss as it was computed."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model

    def loss(model: Any, batch: Any) -> torch.Tensor:
        value: torch.Tensor = model(**batch).loss
        return value

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch(), loss=loss)


RULE = Rule(
    "PI307",
    "loss-without-graph",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.LOSS,
)
