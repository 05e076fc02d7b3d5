"""Forward sources that read `.weight` of an adapted child, on whatever path: another device, a fused kernel."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any

from peft_inspect.observe.sources import is_machinery, is_peft, shown
from peft_inspect.records import Source, WeightRead

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from torch import nn

    from peft_inspect.observe.layers import AdapterLayers

_METADATA = frozenset({"dtype", "device", "shape", "size", "dim", "ndim", "requires_grad", "is_cuda", "is_meta", "numel"})


def weight_reads(layers: AdapterLayers, seen: Container[str]) -> tuple[WeightRead, ...]:
    """Reads in the source of parents of adapter layers, but for the layers whose weight was `seen` to be read in the run."""
    return tuple(read for read in source_reads(layers.modules, layers.of_path) if read.layer not in seen)


def source_reads(modules: Mapping[str, nn.Module], layers: Iterable[str]) -> Iterator[WeightRead]:
    """Reads of the weights of `layers` in the source of their parents' forward, whether or not a run takes that path."""
    for path in layers:
        parent, _, child = path.rpartition(".")
        owner: Any = type(modules[parent])
        source = _reads_of(owner).get(child)
        if source is not None:
            yield WeightRead(path, parent, source)


@cache
def _reads_of(owner: Any) -> dict[str, Source]:
    """For each child whose weight the forward of this class reads: the first line that does."""
    found: dict[str, Source] = {}
    methods = {name: parsed for name, method in inspect.getmembers(owner, inspect.isfunction) if (parsed := _parsed(method)) is not None}
    for name in _reached_from("forward", {name: tree for name, (tree, _) in methods.items()}):
        tree, origin = methods[name]
        for child, line in _weight_reads(tree):
            code = ast.get_source_segment(origin.code, line) or ""
            found.setdefault(child, Source(origin.file, origin.line + line.lineno - 1, name, " ".join(code.split())))
    return found


def _parsed(method: Callable[..., object]) -> tuple[ast.AST, Source] | None:
    method = inspect.unwrap(method)
    code = getattr(method, "__code__", None)
    if code is None or is_machinery(code) or is_peft(code):
        return None
    try:
        lines, first = inspect.getsourcelines(method)
        text = textwrap.dedent("".join(lines))
        return ast.parse(text), Source(shown(code.co_filename), first, code.co_name, text)
    except (OSError, SyntaxError, TypeError):  # no source: a notebook, a compiled or generated method
        return None


def _reached_from(start: str, methods: dict[str, ast.AST]) -> Iterator[str]:
    """The methods that `start` calls on self, and those that these call."""
    pending, seen = [start], set()
    while pending:
        name = pending.pop()
        if name in seen or name not in methods:
            continue
        seen.add(name)
        yield name
        pending += [node.attr for node in ast.walk(methods[name]) if isinstance(node, ast.Attribute) and _is_self(node)]


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _weight_reads(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """`self.child.weight`, but for looks at its metadata and type checks."""
    harmless = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in _METADATA}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "hasattr", "getattr", "id"):
            harmless |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr == "weight"
            and isinstance(node.value, ast.Attribute)
            and _is_self(node.value)
            and id(node) not in harmless
        ):
            yield node.value.attr, node
