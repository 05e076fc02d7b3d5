"""The adapter was loaded for inference: its config says `inference_mode` and its weights are frozen.

`PeftModel.from_pretrained` loads for inference unless told otherwise, and every saved
`adapter_config.json` says `inference_mode: true`, so a config that is reused freezes the new
adapter as well.

Load with `is_trainable=True`, or set `inference_mode=False` in the config.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Remedy, Severity, Unexplained, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted


def check(left: Unexplained) -> Iterator[Finding]:
    """Active, frozen layers of adapters whose config says inference mode; a reference model beside a trained one is left alone."""
    trace = left.trace
    inference = {(adapter.name) for adapter in trace.structure.adapters if adapter.inference_mode}
    something_trains = any(trace.reached(layer) for layer in trace.structure.adapter_layers)
    layers = []
    for layer in left.dead:
        if layer.adapter in inference and not trace.structure.trainable(layer) and not trace.kept_frozen(layer):
            calls = trace.calls_of.get(layer.path, ())
            if not (something_trains and calls and not trace.training_calls(layer)):
                layers.append(layer)
    if layers:
        names = sorted({layer.adapter for layer in layers})
        yield RULE.finding(
            f"adapter {', '.join(map(repr, names))} was loaded for inference: inference_mode is set, and {counted(len(modules_of(layers)), 'adapter layer')} came frozen",
            modules_of(layers),
            facts={"adapters": names},
            origin=Origin("adapter-config", ("inference_mode",), names[0]),
            fix="load it with PeftModel.from_pretrained(model, path, is_trainable=True), or set inference_mode=False in its config",
            remedy=Remedy.UNFREEZE,
        )


def broken() -> Example:
    """A saved config, used again."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "v_proj"], inference_mode=True)
    return Example(get_peft_model(tiny_llama(), config), text_batch())


def fixed() -> Example:
    """The config trains."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "v_proj"], inference_mode=False)
    return Example(get_peft_model(tiny_llama(), config), text_batch())


RULE = Rule(
    "PI301",
    "loaded-for-inference",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI205", "PI207", "PI407"),
    because="Disabling adapters and leaving one inactive freezes as well, and an adapter that changes nothing may be loaded for use.",
)
