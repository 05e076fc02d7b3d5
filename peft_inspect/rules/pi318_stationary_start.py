"""As the weights are, every gradient is zero: no step will ever move anything.

A loss can be alive and have nothing to say at the point where training starts. A fresh adapter equals its
base model; distilled from that base, or held to it by a KL term alone, it stands at the minimum of its loss.
A policy ratio that is constant leaves such a term alone. Each weight would get a gradient somewhere else, and
nothing ever leads there.

Look at the line that the finding shows, where the ways back from the loss cancel each other or end, and give the
loss a term that changes with the adapter's output where training starts. Where an input of the batch is one and the
same number throughout (equal rewards give advantages of zero), another batch may move the weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Birth, Finding, Severity, Stationary, Trace, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.pi310_zero_gradient import where
from peft_inspect.rules.rule import Example, Rule, Symptom, Tier
from peft_inspect.rules.words import at_line, counted, quoted


def check(trace: Trace) -> Iterator[Finding]:
    """A step that gives no weight a gradient, with other weights that would get one."""
    if trace.stationary is not None:
        rows = [row for row in trace.gradients if row.arrived]
        largest = max((row.norm or 0.0 for row in rows), default=0.0)
        size = "exactly zero" if largest == 0 else f"zero but for rounding (at most {largest:.0e})"
        birth = _nearest_to_the_loss(trace.stationary)
        constant = next(iter(trace.stationary.constants), None)
        source = constant or (birth.source if birth is not None else None)
        place = f": {where(birth)}" if birth is not None else ""
        place += " (a number stands at the line shown in the place of what depends on the weights)" if constant is not None else ""
        yield RULE.finding(
            f"no step can move anything: as the weights are, the gradients of all {counted(len(rows), 'parameter')} are {size}, "
            f"and with other weights they are {'so too' if trace.stationary.for_good else 'not'}{place}{_chance(trace.stationary)}",
            modules_of(layer for layer in trace.structure.adapter_layers if layer.active and trace.reached(layer)),
            source=source,
            facts={"largest_norm": largest, "loss": trace.loss.value, "constant_inputs": list(trace.stationary.constant_inputs)},
            fix=at_line(
                source,
                "give the loss a term that changes with the adapter's output where training starts: a fresh adapter equals its base model",
            ),
        )


def _nearest_to_the_loss(stationary: Stationary) -> Birth | None:
    """Of the births, one outside the adapter: inside it, a fresh factor is zero by design."""
    outside = [birth for birth in stationary.births if not birth.inside]
    return next((birth for birth in outside if birth.how == "cancellation"), next(iter(outside), None))


def _chance(stationary: Stationary) -> str:
    names = stationary.constant_inputs
    if not names:
        return ""
    return f"; {quoted(names)} in the batch {'is' if len(names) == 1 else 'are'} one and the same number throughout, another batch may move them"


def broken() -> Example:
    """A fresh adapter is distilled from its own base."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model

    def loss(model: Any, batch: Any) -> torch.Tensor:
        with torch.no_grad(), model.disable_adapter():
            teacher = model(**batch).logits
        difference: torch.Tensor = (model(**batch).logits - teacher).square().mean()
        return difference

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch(), loss=loss)


def fixed() -> Example:
    """The labels say something as well."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model

    def loss(model: Any, batch: Any) -> torch.Tensor:
        with torch.no_grad(), model.disable_adapter():
            teacher = model(**batch).logits
        output = model(**batch)
        total: torch.Tensor = output.loss + (output.logits - teacher).square().mean()
        return total

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch(), loss=loss)


RULE = Rule(
    "PI318",
    "stationary-start",
    Severity.ERROR,
    over=Trace,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.CUT,
    symptom=Symptom.ZERO_GRADIENT,
    needs_values=True,
)
