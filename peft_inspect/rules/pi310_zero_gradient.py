"""All gradients of the adapter are exactly zero, beyond what its initialisation implies.

A fresh LoRA has exact zeros on `lora_A`, because `lora_B` is zero; that is healthy. Here the
zeros stay when nothing that is trained is zero, whatever stochastic depth leaves out. The finding
names the first operation, on the way back from the loss, that takes a gradient and hands on zeros only:
a multiplication by zero, a softmax over one element, `lora_dropout=1.0`, a hook on a gradient, two paths
that cancel each other. Where it names none, none was found.

Look at the line that it shows, or at the setting: what is multiplied by zero there, or cut out by a mask.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from peft_inspect.records import Birth, Finding, Origin, Severity, Unexplained, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.experts import got_no_token
from peft_inspect.rules.rule import Example, Rule, Symptom, Tier
from peft_inspect.rules.words import at_line, counted


def check(left: Unexplained) -> Iterator[Finding]:
    """Layers whose zeros outlive a perturbation of everything that is trained, grouped by where the zeros are born."""
    trace = left.trace
    zero = trace.zero_for_good - left.explained
    layers = modules_of(layer for layer in trace.structure.adapter_layers if layer.path in zero and not got_no_token(trace, layer.path))
    born = {path: birth for birth in trace.zero_births for path in birth.layers}
    places: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for path in layers:
        places[_fault(born.get(path))].append(path)
    if len(places) == 2 and () in places:  # beside one place, what has none of its own is taken to be behind it
        unplaced = places.pop(())
        next(iter(places.values())).extend(unplaced)
    for paths in places.values():
        first = born.get(paths[0])
        others = len({birth.module for path in paths if (birth := born.get(path)) is not None}) - 1
        place = where(first) + (f", and so in {counted(others, 'other module')}" if others > 0 and first and not first.inside else "")
        yield RULE.finding(
            f"the gradients of {counted(len(paths), 'adapter layer')} are exactly zero, with other adapter weights as well: {place}",
            paths,
            source=(first.factor_source or first.source) if first is not None else None,
            zero=True,
            origin=Origin("adapter-config", ("lora_dropout",), exact=True) if first is not None and _is_dropout(first) else None,
            facts={"loss": trace.loss.value, "operation": first.operation if first else None, "module": first.module if first else None},
            fix=_fix(first),
        )


def _fault(birth: Birth | None) -> tuple[object, ...]:
    """What is the same for all layers of one fault: the operation at its line, wherever it is called from."""
    if birth is None:
        return ()
    return (birth.factor,) if birth.inside else (birth.how, birth.operation, birth.source)


def where(birth: Birth | None) -> str:
    """Where gradients become zero, in words."""
    if birth is None:
        return "no one operation makes them zero, so that no place can be named"
    if birth.how == "hook":
        return f"{birth.operation} turns them into zeros"
    if birth.how == "cancellation":
        return f"what comes back on several ways from {birth.operation} adds up to zero"
    if birth.inside:
        return f"the adapter itself makes them zero, {birth.factor or birth.operation} is zero throughout"
    if birth.called is not None:
        return f"they become zero in the backward of {birth.operation} (called at {birth.called}), which takes gradients and returns zeros only"
    within = f" in {birth.module!r}" if birth.module else ""
    rest = f", where {birth.factor} is zero throughout" if birth.factor else ", which takes gradients and hands on zeros only"
    return f"they become zero at {birth.operation}{within}{rest}"


def _is_dropout(birth: Birth) -> bool:
    return birth.inside and "Dropout" in birth.factor


def _fix(birth: Birth | None) -> str:
    if birth is None:
        return "look between these layers and the loss for a factor that is zero: a mask, a saturated activation, a loss weight"
    if birth.how == "hook":
        return "take the hook away, or have it return a gradient that is not zero"
    if _is_dropout(birth):
        return "set lora_dropout below 1: it is the share that is dropped, not the share that is kept"
    if birth.how == "cancellation":
        return at_line(birth.source, "change what is compared here: both sides of it move together with these weights")
    return at_line(
        birth.source,
        "make the factor at this line other than zero: a mask, a weight of the loss, a saturated or constant function, "
        "advantages of rewards that are all alike",
    )


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
