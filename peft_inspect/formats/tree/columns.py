"""The columns beside the tree: their names, and what each says about a module or about several equal ones."""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.formats.names import visible
from peft_inspect.formats.numbers import count, size
from peft_inspect.formats.tree.labels import shape_of, short_dtype, sign_of, weight_of
from peft_inspect.formats.tree.runs import Run
from peft_inspect.formats.view import Column, View
from peft_inspect.records import Structure


def heads_of(column: Column, structure: Structure) -> tuple[str, ...]:
    """The names over a column; parameters take two, adapters one each."""
    if column == "adapters":
        return tuple(visible(name) for name in adapter_names(structure))
    return ("params", "trainable") if column == "params" else (column,)


def adapter_names(structure: Structure) -> tuple[str, ...]:
    """Every adapter that a layer carries."""
    return tuple(dict.fromkeys(layer.adapter for layer in structure.adapter_layers))


def cells_of(column: Column, run: Run, structure: Structure, view: View) -> Iterator[str]:
    """One cell per head, safe to show. Counts and bytes are sums over the run; a second path to a module adds nothing to them."""
    yield from map(visible, _cells(column, run, structure, view))


def _cells(column: Column, run: Run, structure: Structure, view: View) -> Iterator[str]:
    node = run.first
    times = len(run.nodes) if node.alias_of is None else 0
    weight = weight_of(node, structure)
    if column == "params":
        yield from (count(number * times, exact=view.exact) if number * times else "" for number in (node.total, node.trainable))
    elif column == "memory":
        yield size(node.nbytes * times, exact=view.exact) if node.nbytes * times else ""
    elif column == "shape":
        yield shape_of(weight)
    elif column == "dtype":
        yield short_dtype(weight.dtype) if weight else ""
    elif column == "device":
        yield weight.device if weight else ""
    elif column == "output":
        yield node.activation.output if node.activation else ""
    elif column == "macs":
        macs = sum(each.activation.macs for each in run.nodes if each.activation)
        yield count(macs, exact=view.exact) if macs else ""
    elif column == "adapters":
        for name in adapter_names(structure):
            layers = [layer for layer in node.all_layers() if layer.adapter == name] if node.layers else []
            ranks = ",".join(str(layer.r) for layer in layers if layer.r is not None)
            yield f"{sign_of(layers[0], structure)}{ranks}" if layers else ""
    elif column == "rank":
        yield ",".join(str(layer.r) for layer in node.all_layers() if layer.r is not None) if node.layers else ""
    else:
        yield node.path or "(root)"
