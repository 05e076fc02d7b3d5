"""NaN or Inf in the loss or in the gradients.

One such value spreads through every weight at the first optimizer step. The finding names the
first module, in execution order, that made a non-finite value out of finite ones.

Look at its inputs and weights: a division by zero, a logarithm of zero, an overflow in a half
dtype.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Severity, Trace, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule


def check(trace: Trace) -> Iterator[Finding]:
    """The module that the search for the first non-finite value found."""
    bad = [row for row in trace.gradients if row.state == "nonfinite"]
    if trace.nonfinite is not None:
        first = trace.nonfinite
        where = f"module {first.path!r} ({first.type})" if first.path else "the loss, outside every submodule,"
        yield RULE.finding(
            f"{len(bad)} parameters have non-finite gradients (loss {trace.loss.value}): {where} is the first to produce NaN or Inf, in the {first.phase}",
            [row.layer for row in bad if row.layer] or modules_of(layer for layer in trace.structure.adapter_layers if layer.active),
            source=first.source,
            facts={"first_module": first.path, "phase": first.phase, "parameters": len(bad)},
            fix="look at the inputs and weights of the module named: a division by zero, a log of zero, an overflow in a half dtype",
        )


def broken() -> Example:
    """A logarithm of zero."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model

    def loss(model: Any, batch: Any) -> torch.Tensor:
        logits: torch.Tensor = model(**batch).logits
        return torch.log(logits - logits).mean()

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch(), loss=loss)


def fixed() -> Example:
    """A logarithm of probabilities."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model

    def loss(model: Any, batch: Any) -> torch.Tensor:
        logits: torch.Tensor = model(**batch).logits
        return -torch.log_softmax(logits, dim=-1)[..., 0].mean()

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch(), loss=loss)


RULE = Rule(
    "PI315",
    "non-finite-gradient",
    Severity.ERROR,
    over=Trace,
    check=check,
    broken=broken,
    fixed=fixed,
    explained_by=("PI313",),
    needs_values=True,
)
