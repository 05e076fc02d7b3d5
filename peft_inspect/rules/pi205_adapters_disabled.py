"""Adapter layers ran with adapters disabled.

A disabled adapter layer runs its base layer alone, so the pass that reaches the loss
trains nothing. It happens when `disable_adapter_layers()` is called by hand, for a
reference pass for instance, and an early return or an exception skips the call that
enables them again. A batch whose `adapter_names` say `"__base__"` for every sample does the same.

Use the context manager, which enables them whatever happens:

    with model.disable_adapter():
        reference = model(**batch)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from peft_inspect.records import AdapterLayerInfo, Finding, Remedy, Severity, Source, Trace, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import counted


def check(trace: Trace) -> Iterator[Finding]:
    """Dead layers whose every pass with gradients on ran without the adapter: disabled, or for samples that name none."""
    places: dict[tuple[bool, Source | None], list[AdapterLayerInfo]] = defaultdict(list)
    for layer in trace.dead:
        calls = trace.training_calls(layer)
        if calls and not any(call.enabled for call in calls):
            places[True, calls[-1].switched].append(layer)
        elif calls and not any(call.active for call in calls) and calls[-1].per_sample:
            places[False, None].append(layer)
    for (disabled, source), layers in places.items():
        many = counted(len(modules_of(layers)), "adapter layer")
        yield RULE.finding(
            f"{many} ran with adapters disabled: only the base layers reached the loss"
            if disabled
            else f"{many} ran without an adapter, though one is active: every sample of the batch names the base model",
            modules_of(layers),
            source=source,
            fix="call model.enable_adapter_layers() before the training forward, or use `with model.disable_adapter():` for reference passes"
            if disabled
            else "name the adapter that trains in adapter_names, or leave adapter_names out",
            remedy=Remedy.ENABLE if disabled else None,
        )


def broken() -> Example:
    """A reference pass by hand, never undone."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    model.disable_adapter_layers()
    return Example(model, text_batch())


def fixed() -> Example:
    """The context manager enables the adapters again."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    with model.disable_adapter():
        model(**text_batch())
    return Example(model, text_batch())


RULE = Rule("PI205", "adapters-disabled", Severity.ERROR, over=Trace, check=check, broken=broken, fixed=fixed, tier=Tier.CAUSE)
