"""The one visual language for modules: what a line of the tree says about one, each part with its style.

Meaning is never carried by colour alone: every state is also a sign or a word. Yellow, green and cyan are never bold: most
terminals make them bright then, which nobody reads on a light ground.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from peft_inspect.formats.names import visible
from peft_inspect.formats.tree.nodes import Flag, Node, saved_copies
from peft_inspect.records import AdapterLayerInfo, ParameterInfo, Severity, Source, Structure

FLAG_SIGNS = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.NOTE: "·"}
FLAG_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
TRAINED, RESTING = "◆", "◇"
LEGEND = f"{TRAINED} trains  {RESTING} does not train  ✗ ! · error, warning, note  ×N: sum of N, one shown"
DIFF_LEGEND = "+ added  - removed  ~ changed"
_SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


@dataclass(frozen=True)
class Part:
    """A piece of a label, safe to show whoever named it. Where a line is too long, parts with the highest `drop` go first; 0 stays."""

    text: str
    style: str = ""
    drop: int = 0
    opens: bool = False  # what comes next stays on its line

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", visible(self.text))


def short_dtype(dtype: str) -> str:
    """`bf16` for `bfloat16`."""
    return _SHORT.get(dtype, dtype)


def shown_type(node: Node) -> str:
    """The class of the base layer for an adapter layer, of the original for a module in `modules_to_save`, else its own."""
    if node.layers:
        return node.layers[0].base_type
    original = next((child for child in node.children if child.name == "original_module"), None)
    return original.module.type if original is not None and saved_copies(node) else node.module.type


def saved_parts(node: Node) -> Iterator[Part]:
    """`◆ default modules_to_save`."""
    trains = node.trainable > 0
    for name in saved_copies(node):
        style = "green" if trains else "yellow"
        yield Part(TRAINED if trains else RESTING, style, opens=True)
        yield Part(f"{name} modules_to_save", style)


def adapter_parts(layers: Sequence[AdapterLayerInfo], path: str, structure: Structure) -> Iterator[Part]:
    """`◆ default r=8 α=16 bf16`, with every state that is out of the ordinary in words; a layer deeper than `path` by its place."""
    several = len({layer.adapter for layer in structure.adapter_layers}) > 1
    before: str | None = None
    for layer in layers:
        sign = sign_of(layer, structure)
        style = "green" if sign == TRAINED else "yellow"
        if layer.adapter != before:
            yield Part(sign, style, opens=True)
            yield Part(layer.adapter, style, drop=0 if several else 1)
        before = layer.adapter
        if layer.parameter_name:
            yield Part(layer.parameter_name, style)
        elif layer.path != path:
            yield Part(layer.path.removeprefix(path + "."), style)
        if layer.tuner != "LORA":
            yield Part(layer.tuner, style)
        if layer.r is not None:
            yield Part(f"r={layer.r}", style)
        if layer.lora_alpha is not None:
            yield Part(f"α={layer.lora_alpha:g}", style, drop=2)
        yield Part(short_dtype(layer.dtype), style, drop=3)
        yield from (Part(word, "yellow") for word in layer_words(layer, structure))
        yield from (Part(word, style) for word in variants(layer))


def beside_columns(layers: Sequence[AdapterLayerInfo], path: str, structure: Structure) -> Iterator[Part]:
    """What the columns of the adapters leave unsaid: states and kinds that do not hold for all layers of an adapter."""
    for layer in layers:
        words = [word for word in (*layer_words(layer, structure), *variants(layer)) if word not in common_words(layer.adapter, structure)]
        place = layer.parameter_name or (layer.path.removeprefix(f"{path}.") if layer.path != path else "")
        if words or place:
            yield Part(" ".join((layer.adapter, *([place] if place else ()), *words)), "yellow" if words else "")


def adapters_said(structure: Structure) -> Iterator[str]:
    """A line on each of several adapters: its ranks and scalings, and what holds for all of its layers."""
    for name in dict.fromkeys(layer.adapter for layer in structure.adapter_layers):
        layers = [layer for layer in structure.adapter_layers if layer.adapter == name]
        ranks = sorted({layer.r for layer in layers if layer.r is not None})
        alphas = sorted({layer.lora_alpha for layer in layers if layer.lora_alpha is not None})
        dtypes = dict.fromkeys(short_dtype(layer.dtype) for layer in layers)
        numbers = [f"{sign}{','.join(f'{value:g}' for value in values)}" for sign, values in (("r=", ranks), ("α=", alphas)) if values]
        yield visible(" ".join((f"{name}:", *numbers, ",".join(dtypes), *common_words(name, structure))))


def common_words(adapter: str, structure: Structure) -> tuple[str, ...]:
    """The states and kinds that all layers of an adapter share."""
    said = [(*layer_words(layer, structure), *variants(layer)) for layer in structure.adapter_layers if layer.adapter == adapter]
    return tuple(word for word in said[0] if all(word in words for words in said)) if said else ()


def sign_of(layer: AdapterLayerInfo, structure: Structure) -> str:
    """Whether it trains, as a sign."""
    return TRAINED if structure.trainable(layer) and layer.active and layer.enabled and not layer.merged else RESTING


def layer_words(layer: AdapterLayerInfo, structure: Structure) -> Iterator[str]:
    """The states of an adapter layer that are out of the ordinary."""
    if not structure.trainable(layer):
        yield "frozen"
    if not layer.active:
        yield "inactive"
    if layer.merged:
        yield "merged"
    if not layer.enabled:
        yield "disabled"


def variants(layer: AdapterLayerInfo) -> Iterator[str]:
    """What kind of LoRA it is: `dora`, `rslora`. How the base layer stores its weight is no kind."""
    yield from (name.removeprefix("use_") for name, value in sorted(layer.details.items()) if value is True and name != "fan_in_fan_out")


def flag_parts(flags: Sequence[Flag]) -> Iterator[Part]:
    """`✗ PI303`."""
    for code, severity in flags:
        yield Part(f"{FLAG_SIGNS[severity]} {code}", FLAG_STYLES[severity])


def weight_of(node: Node, structure: Structure) -> ParameterInfo | None:
    """The weight that a module's shape is known by; for an adapter layer that of its base layer."""
    names = ["weight"]
    path = f"{node.path}.original_module" if saved_copies(node) else node.path
    if node.layers:
        path = node.layers[0].base_path
        names = [name for name in (node.layers[0].parameter_name, "weight") if name]
    for name in names:
        if (parameter := structure.parameter.get(f"{path}.{name}" if path else name)) is not None:
            return parameter
    return node.parameters[0] if node.parameters and not node.children else None


def place(source: Source) -> str:
    """`modeling_wavlm.py:231`."""
    return f"{PurePath(source.file).name}:{source.line}"


def shape_of(parameter: ParameterInfo | None) -> str:
    """`4096×11008` as stored; quantised weights are stored packed."""
    if parameter is None:
        return ""
    return "×".join(map(str, parameter.shape)) + (f" {parameter.quantization}" if parameter.quantization else "")
