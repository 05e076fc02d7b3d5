"""The gradient norm of every adapter parameter: a row for each adapter layer, a column for each of its factors."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from peft_inspect.formats.layout import place_of, stacks_of
from peft_inspect.formats.names import visible
from peft_inspect.formats.screen import Line
from peft_inspect.formats.table import Section, table
from peft_inspect.records import AdapterLayerInfo, GradientInfo, Trace

_WORDS = {"none": "none", "frozen": "frozen", "nonfinite": "NaN", "zero": "0", "zero-at-init": "0 (init)"}


def norm_lines(trace: Trace) -> Iterator[Line]:
    """The table, by stack; without weights a gradient has no size, and the table says whether one arrives."""
    layers = trace.structure.adapter_layers
    if not layers:
        return
    several = len({layer.adapter for layer in layers}) > 1
    factors = tuple(dict.fromkeys(_factor(path, layer) for layer in layers for path in layer.parameters))
    stacks = stacks_of(trace.structure)
    rows: dict[str, list[tuple[str, ...]]] = {}
    for layer in layers:
        place = place_of(layer.path, stacks)
        stack, name = ("", layer.path) if place is None else (place.stack, f"{place.block}.{place.inner}")
        cells = {_factor(path, layer): _cell(trace.gradient.get(path)) for path in layer.parameters}
        parameter = f".{layer.parameter_name}" if layer.parameter_name else ""
        adapter = (layer.adapter,) if several else ()
        rows.setdefault(stack, []).append((f"{name}{parameter}", *adapter, *(cells.get(factor, "") for factor in factors)))
    heads = ("module", *(("adapter",) if several else ()), *factors)
    sections: list[Section] = [(heads, ())]
    sections += [((visible(stack) or "outside the stacks",), found) for stack, found in rows.items()]
    known = (
        "L2 norm of the gradient"
        if trace.structure.weights != "none"
        else "gradients: without weights they have no size (--weights random)"
    )
    yield Line(Text(known, style="bold"))
    yield from table(sections, right=frozenset(range(len(heads) - len(factors), len(heads))), wide=60)


def _factor(path: str, layer: AdapterLayerInfo) -> str:
    """`lora_A` for `….lora_A.default.weight`."""
    return path.removeprefix(f"{layer.path}.").partition(".")[0]


def _cell(gradient: GradientInfo | None) -> str:
    if gradient is None:
        return ""
    if gradient.state != "ok":
        return _WORDS[gradient.state]
    return "arrives" if gradient.norm is None else f"{gradient.norm:.2e}"
