"""Reentrant activation checkpointing around blocks none of whose inputs requires grad.

Reentrant checkpointing runs its block without gradients and again in the backward, but only
when one of the block's *input tensors* requires grad. In a frozen base model none does: the
embeddings and stems are frozen, so the whole graph of the block is dropped, adapters included.
So it is where the block takes its input from a closure instead of an argument.

Use `use_reentrant=False`, or call `model.enable_input_require_grads()`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Remedy, Severity, Source, Unexplained
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import counted


def check(left: Unexplained) -> Iterator[Finding]:
    """Dead layers that ran in a checkpoint without an input that requires grad, grouped by the line that calls it."""
    trace = left.trace
    places: dict[tuple[Source | None, str], list[str]] = defaultdict(list)
    for layer in left.dead:
        regions = [call.region for call in trace.calls_of.get(layer.path, ()) if call.phase == "forward"]
        inside = [region for region in regions if region is not None and region.inputs_require_grad is False]
        if inside and len(inside) == len(regions) and trace.structure.trainable(layer):
            places[inside[0].source, inside[0].kind].append(layer.path)
    for cut in trace.cuts:
        if cut.kind == "checkpoint-without-grad-input":  # layers in front, whose output comes in through a closure
            places[cut.source, cut.operation] += left.of(cut.layers)
    for (source, kind), layers in places.items():
        if not layers:
            continue
        own = kind == "autograd-function"
        what = "a checkpointing autograd function" if own else "reentrant activation checkpointing"
        yield RULE.finding(
            f"{counted(len(set(layers)), 'adapter layer')} ran inside {what}, none of whose inputs requires grad: what ran inside leaves no graph",
            layers,
            source=source,
            origin=None if own else Origin("checkpointing"),
            facts={"checkpoint": kind},
            fix="use non-reentrant checkpointing (use_reentrant=False), or call model.enable_input_require_grads() so that an input requires grad",
            remedy=Remedy.INPUT_GRADIENTS if own else Remedy.NON_REENTRANT,
        )


def broken() -> Example:
    """Reentrant checkpointing on a frozen base model."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    base = model.base_model.model
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    if hasattr(base, "_require_grads_hook"):  # transformers 5 switches it on by itself
        base.disable_input_require_grads()
    return Example(model, text_batch())


def fixed() -> Example:
    """Non-reentrant checkpointing."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    model.base_model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Example(model, text_batch())


RULE = Rule(
    "PI304",
    "reentrant-checkpoint-without-grad-input",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.MODE,
    gives_way_to=("PI207",),
    because="While another adapter should be active, this one may run for reference.",
)
