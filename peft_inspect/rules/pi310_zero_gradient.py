"""All gradients of the adapter are exactly zero, beyond what its initialisation implies.

A fresh LoRA has exact zeros on `lora_A`, because `lora_B` is zero; that is healthy. Here the
zeros stay when nothing that is trained is zero, whatever stochastic depth leaves out: they
come from further up.

Look for a saturated or masked output, a loss multiplied by zero, or a batch that contributes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Severity, Trace, Unexplained, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.experts import is_expert
from peft_inspect.rules.rule import Example, Rule, Symptom, Tier
from peft_inspect.rules.words import counted


def check(left: Unexplained) -> Iterator[Finding]:
    """Layers whose zeros outlive a perturbation of everything that is trained."""
    trace = left.trace
    zero = trace.zero_for_good - left.explained
    layers = [layer for layer in trace.structure.adapter_layers if layer.path in zero and not _got_no_token(trace, layer.path)]
    if layers:
        yield RULE.finding(
            f"the gradients of {counted(len(modules_of(layers)), 'adapter layer')} are exactly zero, with other adapter weights as well, though the loss is "
            "connected to them",
            modules_of(layers),
            zero=True,
            facts={"loss": trace.loss.value},
            fix="look between these layers and the loss for a factor that is zero: a mask, a saturated activation, a loss weight",
        )


def _got_no_token(trace: Trace, path: str) -> bool:
    """Whether all its calls were for no token at all, or are those of an expert that is multiplied by zero beside one that trains."""
    calls = trace.calls_of.get(path, ())
    if calls and all(call.empty for call in calls):
        return True
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        if is_expert(trace.structure, ".".join(parts[:end])):
            stack = ".".join(parts[: end - 1]) + "."
            return any((row.layer or "").startswith(stack) and row.state == "ok" for row in trace.gradients)
    return False


def broken() -> Example:
    """A loss weight of zero."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model

    def loss(model: Any, batch: Any) -> torch.Tensor:
        weighted: torch.Tensor = model(**batch).loss * 0.0
        return weighted

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch(), loss=loss)


def fixed() -> Example:
    """A loss weight that counts."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model

    def loss(model: Any, batch: Any) -> torch.Tensor:
        weighted: torch.Tensor = model(**batch).loss * 0.5
        return weighted

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch(), loss=loss)


RULE = Rule(
    "PI310",
    "zero-gradient",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.SYMPTOM,
    symptom=Symptom.ZERO_GRADIENT,
    gives_way_to=("PI306", "PI308"),
    because="A derivative of zero and an output that the loss does not use leave zeros.",
    needs_values=True,
)
