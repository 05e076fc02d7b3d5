"""Gradients vanish in the dtype of the parameters, and are there in a wider one.

float16 has nothing between zero and 6e-8: smaller gradients are flushed to zero. Scaled up,
as a gradient scaler does, they appear.

Keep adapter weights in float32 (PEFT's default, `autocast_adapter_dtype=True`), use bfloat16,
or train with a `GradScaler`.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Remedy, Severity, Unexplained, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule, Symptom, Tier
from peft_inspect.rules.words import counted

_AUTOCAST = ["the half precision of autocast"]


def check(left: Unexplained) -> Iterator[Finding]:
    """Layers whose exact zeros turn into gradients once the loss is scaled up."""
    trace = left.trace
    layers = [layer for layer in trace.structure.adapter_layers if layer.path in trace.underflow - left.explained]
    if layers:
        dtypes = sorted({layer.dtype for layer in layers} - {"float32", "float64"}) or _AUTOCAST
        yield RULE.finding(
            f"the gradients of {counted(len(modules_of(layers)), 'adapter layer')} underflow to zero in {', '.join(dtypes)}: they appear when the loss is scaled up",
            modules_of(layers),
            zero=True,
            origin=Origin("cast", adapter=layers[0].adapter) if dtypes != _AUTOCAST else None,
            facts={"dtypes": dtypes},
            fix="keep the adapter in float32 (autocast_adapter_dtype=True) or train with a gradient scaler",
            remedy=Remedy.FLOAT32,
        )


def broken() -> Example:
    """A float16 model and a small loss."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model

    def loss(model: Any, batch: Any) -> torch.Tensor:
        scaled: torch.Tensor = model(**batch).loss * 1e-6
        return scaled

    model = get_peft_model(tiny_llama().half(), LoraConfig(target_modules=["q_proj"]), autocast_adapter_dtype=False)
    return Example(model, text_batch(), loss=loss)


def fixed() -> Example:
    """The same in float32."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model

    def loss(model: Any, batch: Any) -> torch.Tensor:
        scaled: torch.Tensor = model(**batch).loss * 1e-6
        return scaled

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch(), loss=loss)


RULE = Rule(
    "PI314",
    "gradient-underflow",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.CUT,
    symptom=Symptom.ZERO_GRADIENT,
    needs_values=True,
)
