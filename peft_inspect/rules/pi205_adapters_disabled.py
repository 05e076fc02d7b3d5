"""Adapter layers ran with adapters disabled.

A disabled adapter layer runs its base layer alone, so the pass that reaches the loss
trains nothing. It happens when `disable_adapter_layers()` is called by hand, for a
reference pass for instance, and an early return or an exception skips the call that
enables them again.

Use the context manager, which enables them whatever happens:

    with model.disable_adapter():
        reference = model(**batch)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from peft_inspect.records import AdapterLayerInfo, Finding, Severity, Source, Trace, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted


def check(trace: Trace) -> Iterator[Finding]:
    """Dead layers whose every pass with gradients on ran disabled."""
    places: dict[Source | None, list[AdapterLayerInfo]] = defaultdict(list)
    for layer in trace.dead:
        calls = trace.training_calls(layer)
        if calls and not any(call.enabled for call in calls):
            places[calls[-1].switched].append(layer)
    for source, layers in places.items():
        yield RULE.finding(
            f"{counted(len(modules_of(layers)), 'adapter layer')} ran with adapters disabled: only the base layers reached the loss",
            modules_of(layers),
            source=source,
            fix="call model.enable_adapter_layers() before the training forward, or use `with model.disable_adapter():` for reference passes",
            remedy="enable",
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


RULE = Rule("PI205", "adapters-disabled", Severity.ERROR, over=Trace, check=check, broken=broken, fixed=fixed)
