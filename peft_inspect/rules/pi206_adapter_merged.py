"""Adapter layers ran merged: only their base layers ran.

`merge_adapter()` adds the adapter into the base weight, for rollouts or to hand weights to an
inference engine. A merged layer runs its base layer alone, and nothing is left to train.

Call `model.unmerge_adapter()` before the training forward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from peft_inspect.records import AdapterLayerInfo, Finding, Remedy, Severity, Source, Trace, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import agreed, counted


def check(trace: Trace) -> Iterator[Finding]:
    """Dead layers whose every pass with gradients ran merged."""
    places: dict[Source | None, list[AdapterLayerInfo]] = defaultdict(list)
    for layer in trace.dead:
        calls = trace.training_calls(layer)
        if calls and all(call.merged for call in calls):
            places[calls[-1].switched].append(layer)
    for source, layers in places.items():
        yield RULE.finding(
            f"{counted(len(modules_of(layers)), 'adapter layer')} ran merged into {agreed(len(modules_of(layers)), 'its base weight', 'their base weights')}: nothing is left to train",
            modules_of(layers),
            source=source,
            fix="call model.unmerge_adapter() before the training forward",
            remedy=Remedy.UNMERGE,
        )


def broken() -> Example:
    """Merged for a rollout, and left so."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    model.merge_adapter()
    return Example(model, text_batch())


def fixed() -> Example:
    """Unmerged after the rollout."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    model.merge_adapter()
    model.unmerge_adapter()
    return Example(model, text_batch())


RULE = Rule("PI206", "adapter-merged", Severity.ERROR, over=Trace, check=check, broken=broken, fixed=fixed, tier=Tier.CAUSE)
