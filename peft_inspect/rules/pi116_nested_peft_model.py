"""A PeftModel was wrapped again: the keys of a checkpoint will not find their layers.

Every wrapping puts `base_model.model.` in front of the module paths. Adapters saved from a model that was
wrapped twice have keys that fit no model wrapped once, and adapters loaded into it find no place.

Wrap the base model once; add further adapters with `model.add_adapter(name, config)`, and load a saved one
with `PeftModel.from_pretrained(base, path)` on a bare base model.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Severity, Structure, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import agreed, counted, literal


def check(structure: Structure) -> Iterator[Finding]:
    """PeftModels that lie inside another one."""
    models = [module.path for module in structure.modules if module.kind == "peft-model"]
    for inner in models:
        around = [outer for outer in models if outer != inner and (not outer or inner.startswith(f"{outer}."))]
        if around:
            outer = max(around, key=len)
            layers = [path for path in modules_of(structure.adapter_layers) if path.startswith(f"{inner}.")]
            yield RULE.finding(
                f"the PeftModel at {inner!r} lies inside another one ({literal(outer) if outer else 'the root'}): its "
                f"{counted(len(layers), 'adapter layer')} {agreed(len(layers), 'has a path', 'have paths')} that no saved adapter has",
                (inner, *layers),
                facts={"inner": inner, "outer": outer, "layers": len(layers)},
                origin=Origin("wrapped"),
                fix="wrap the base model once; use model.add_adapter(name, config) for a second adapter, or model.get_base_model() first",
            )


def broken() -> Example:
    """What was wrapped is wrapped again."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    return Example(get_peft_model(model, LoraConfig(target_modules=["v_proj"])), text_batch())


def fixed() -> Example:
    """Wrapped once, with all targets."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"])), text_batch())


RULE = Rule("PI116", "nested-peft-model", Severity.ERROR, over=Structure, check=check, broken=broken, fixed=fixed)
