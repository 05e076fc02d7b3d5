"""NaN or Inf in the loss, in the gradients or in an adapter file.

One such value spreads through every weight at the first optimizer step. The finding names the
first operation, in execution order, that made a non-finite value out of finite ones, with its line and its module; where the model
has no values, the tensors of the adapter's file that hold one.

Look at its inputs and weights: a division by zero, a logarithm of zero, an overflow in a half
dtype. A file with such values was saved after a step that diverged: take an earlier checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import AdapterFile, Finding, Severity, Trace, modules_of
from peft_inspect.rules.adapter_match import loaded
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import NO_VALUES, Example, Rule, Symptom, Tier
from peft_inspect.rules.words import agreed, counted


def check(trace: Trace) -> Iterator[Finding]:
    """The module that the search for the first non-finite value found; else files with such values, which the watched model need not hold."""
    bad = [row for row in trace.gradients if row.state == "nonfinite"]
    if trace.nonfinite is not None:
        first = trace.nonfinite
        where = f"module {first.path!r} ({first.type})" if first.path else "the loss, outside every submodule,"
        what = f" ({first.operation})" if first.operation else ""
        given = f": {first.weight} holds some before the run" if first.weight else ""
        yield RULE.finding(
            f"{counted(len(bad), 'parameter')} {agreed(len(bad), 'has a non-finite gradient', 'have non-finite gradients')} (loss {trace.loss.value}): {where} is the first to produce NaN or Inf, in the {first.phase}{what}{given}",
            [row.layer for row in bad if row.layer] or modules_of(layer for layer in trace.structure.adapter_layers if layer.active),
            source=first.source,
            facts={"first_module": first.path, "phase": first.phase, "operation": first.operation, "parameters": len(bad)},
            fix="look at what goes in at this place: a division by zero, a log of zero, a root of zero, an overflow in a half dtype",
        )
        return
    if bad:  # a step of the user's own program, which is not run once more to find the place
        yield RULE.finding(
            f"{counted(len(bad), 'parameter')} {agreed(len(bad), 'has a non-finite gradient', 'have non-finite gradients')} (loss {trace.loss.value}): the step of the optimizer writes NaN into the weights",
            [row.layer for row in bad if row.layer] or modules_of(layer for layer in trace.structure.adapter_layers if layer.active),
            facts={"parameters": len(bad)},
            fix="look for a division by zero, a log of zero, a root of zero, an overflow in a half dtype; peft_inspect.check(model, batch) names the first module",
        )
        return
    for file in trace.adapter_files:
        if keys := _nonfinite(file):
            yield RULE.finding(
                f"{len(keys)} of {counted(len(file.tensors), 'tensor')} in {file.path} {agreed(len(keys), 'holds', 'hold')} NaN or Inf, {keys[0]} for one: so does all that is computed with them",
                [file.layer_of[key] for key in keys if key in file.layer_of],
                facts={"file": file.path, "tensors": len(keys), "keys": keys[:8]},
                fix="the training that saved this file had diverged: go back to an earlier checkpoint, with a lower learning rate or in bfloat16 instead of float16",
            )


def _nonfinite(file: AdapterFile) -> list[str]:
    """The keys, as PEFT loads them, of the tensors that hold NaN or Inf."""
    return [loaded(tensor) for tensor in file.tensors if tensor.finite is False]


def _without_values(trace: Trace) -> str | None:
    has_values = trace.structure.weights != "none" or any(map(_nonfinite, trace.adapter_files))
    return None if has_values else NO_VALUES


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
    tier=Tier.CAUSE,
    symptom=Symptom.ZERO_GRADIENT,
    gives_way_to=("PI313",),
    because="The mean over no label is NaN.",
    skip=_without_values,
)
