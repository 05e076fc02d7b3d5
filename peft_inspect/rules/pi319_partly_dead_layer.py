"""A layer trains, and some of its adapter's factors get no gradient.

An adapter layer may hold more than `lora_A` and `lora_B`: the magnitude of DoRA, a bias on `lora_B`, a factor per
expert. A fused kernel or a forward of one's own that was written for plain LoRA leaves these out: the layer looks
alive, and what is trained is another method than the config asks for.

Use PEFT's own forward for these layers, teach the kernel the factor, or turn the option off that brings it
(`use_dora`, `lora_bias`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

from peft_inspect.records import Finding, Origin, Severity, Trace
from peft_inspect.rules.examples import squared_output
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import agreed, at_line, counted, quoted


def check(trace: Trace) -> Iterator[Finding]:
    """Factors without a gradient in layers whose other factors have one."""
    patched = {call.layer: call.source for call in trace.base_calls if call.patched}
    dead: dict[str, list[str]] = defaultdict(list)  # factor → the layers it is dead in
    trained: set[str] = set()
    for layer in trace.structure.adapter_layers:
        if layer.active and trace.reached(layer):
            for path in layer.parameters:
                state, factor = trace.gradient[path].state, _factor(path, layer.path, layer.adapter)
                if state == "none" or (state == "frozen" and "magnitude" in factor):  # freezing A alone is a method of its own
                    dead[factor].append(layer.path)
                elif state != "frozen":
                    trained.add(factor)
    # a factor that trains in other layers is used by those that come after: in the last layer nothing does
    dead = {name: kept for name, paths in dead.items() if (kept := [path for path in paths if name not in trained or path in patched])}
    if dead:
        layers = list(dict.fromkeys(path for paths in dead.values() for path in paths))
        replaced = [patched[path] for path in layers if path in patched]
        source = next((place for place in replaced if place is not None), None)
        frozen = any(trace.gradient[path].state == "frozen" and "magnitude" in path for path in _weights(trace, layers))
        how = "what runs there in the place of PEFT's forward does not use them" if replaced else "what ran does not use them"
        if frozen and not replaced:
            how = "something froze them after the wrapping"
        number = sum(len(paths) for paths in dead.values())
        yield RULE.finding(
            f"{counted(len(layers), 'adapter layer')} {agreed(len(layers), 'trains', 'train')} in part: {quoted(dead)} "
            f"({counted(number, 'parameter')}) {agreed(number, 'gets', 'get')} no gradient, {how}",
            layers,
            source=source,
            origin=Origin("frozen", exact=True),
            facts={"factors": {name: len(paths) for name, paths in dead.items()}},
            fix="leave requires_grad of these factors as PEFT set it"
            if frozen
            else at_line(
                source, "use PEFT's own forward for these layers, or turn off the option that brings these factors (use_dora, lora_bias)"
            ),
        )


def _weights(trace: Trace, layers: Collection[str]) -> Iterator[str]:
    return (path for layer in trace.structure.adapter_layers if layer.path in layers for path in layer.parameters if path in trace.gradient)


def _factor(path: str, layer: str, adapter: str) -> str:
    """The name of a factor without that of its adapter: `lora_magnitude_vector`, `lora_B.bias`."""
    parts = [part for part in path[len(layer) + 1 :].split(".") if part != adapter]
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "weight" else parts)


def broken() -> Example:
    """A forward for plain LoRA on layers with DoRA."""
    import types
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    def plain(self: Any, x: torch.Tensor) -> torch.Tensor:
        update: torch.Tensor = self.base_layer(x) + self.scaling["default"] * self.lora_B["default"](self.lora_A["default"](x))
        return update

    model = get_peft_model(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), LoraConfig(target_modules=["0"], use_dora=True))
    layer = model.get_submodule("base_model.model.0")
    layer.forward = types.MethodType(plain, layer)
    return Example(model, {"input": torch.randn(2, 8)}, loss=squared_output)


def fixed() -> Example:
    """PEFT's own forward."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    model = get_peft_model(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), LoraConfig(target_modules=["0"], use_dora=True))
    return Example(model, {"input": torch.randn(2, 8)}, loss=squared_output)


RULE = Rule("PI319", "partly-dead-layer", Severity.ERROR, over=Trace, check=check, broken=broken, fixed=fixed)
