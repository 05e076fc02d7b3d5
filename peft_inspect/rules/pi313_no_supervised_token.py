"""Every label of the batch is the ignore index: there is nothing to learn from.

When the prompt is longer than `max_length`, truncation takes the whole completion, and every
label left is -100. The loss is NaN or zero, and every gradient is exactly zero or NaN.

Truncate the prompt instead, or drop samples without a supervised token.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Remedy, Severity, Trace, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule, Symptom, Tier


def check(trace: Trace) -> Iterator[Finding]:
    """Labels, and not one that counts: in the batch, or in what is left of them where the loss compares them."""
    layers = modules_of(layer for layer in trace.structure.adapter_layers if layer.active)
    given = trace.targets
    if trace.batch.labels and trace.batch.supervised == 0:
        yield RULE.finding(
            f"all {trace.batch.labels} labels of the batch are the ignore index (-100): nothing is supervised, the loss is {trace.loss.value}",
            layers,
            facts={"labels": trace.batch.labels, "loss": trace.loss.value},
            zero=True,
            origin=Origin("collated", ("labels",)),
            fix="look for what masks the prompt as it stands in the tokens, truncate the prompt rather than the completion, "
            "or drop samples without a supervised token",
            remedy=Remedy.LABELS,
        )
    elif given is not None and given.supervised == 0:
        yield RULE.finding(
            f"all {given.total} targets that the cross entropy was given are its ignore index ({given.ignore_index}): "
            f"nothing is supervised, the loss is {trace.loss.value}",
            layers,
            ignore_index=given.ignore_index,
            facts={"labels": given.total, "loss": trace.loss.value},
            zero=True,
            fix="look at what is left of the labels after they are shifted, cut and masked, and drop samples without a supervised token",
            remedy=Remedy.LABELS,
        )


def broken() -> Example:
    """The completion was truncated away."""
    import torch
    from peft import LoraConfig, get_peft_model

    batch = {**text_batch(), "labels": torch.full((1, 8), -100)}
    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), batch)


def fixed() -> Example:
    """Some labels count."""
    from peft import LoraConfig, get_peft_model

    batch = text_batch()
    batch["labels"][:, :4] = -100
    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), batch)


RULE = Rule(
    "PI313",
    "no-supervised-token",
    Severity.ERROR,
    over=Trace,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.CAUSE,
    symptom=Symptom.ZERO_GRADIENT,
)
