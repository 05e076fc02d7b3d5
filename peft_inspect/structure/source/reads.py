"""Forward sources that read `.weight` of an adapted child, on whatever path: another device, a fused kernel."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from peft_inspect.records import Source, WeightRead
from peft_inspect.structure.source.lines import is_fetched, is_machinery, is_peft, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping
    from types import CellType

    from torch import nn

    from peft_inspect.run.layers import AdapterLayers

_METADATA = frozenset({"dtype", "device", "shape", "size", "dim", "ndim", "requires_grad", "is_cuda", "is_meta", "numel"})


def weight_reads(layers: AdapterLayers, seen: Container[str]) -> tuple[WeightRead, ...]:
    """Reads in the source of parents of adapter layers, but for the layers whose weight was `seen` to be read in the run."""
    return tuple(read for read in source_reads(layers.modules, layers.of_path) if read.layer not in seen)


def source_reads(modules: Mapping[str, nn.Module], layers: Iterable[str]) -> Iterator[WeightRead]:
    """Reads of the weights of `layers` in the source of their parents' forward, whether or not a run takes that path."""
    for path in layers:
        parent, _, child = path.rpartition(".")
        owner: Any = type(modules[parent])
        patched = vars(modules[parent]).get("forward")
        source = reads_of_class(owner).get(child) if patched is None else _reads_of_patch(owner, patched, modules[parent]).get(child)
        if source is not None:
            yield WeightRead(path, parent, source)


@cache
def reads_of_class(owner: Any) -> dict[str, Source]:
    """For each child whose weight the forward of this class reads, on whatever path: the first line that does."""
    return _reads_in(partial(_method, owner))


def _reads_of_patch(owner: Any, forward: Any, module: nn.Module) -> dict[str, Source]:
    """The same for one module whose forward was replaced: by a method, a partial, or a function around the module."""
    while isinstance(forward, functools.partial):
        forward = forward.func
    function = getattr(forward, "__func__", forward)
    parsed = _parsed(function) if inspect.isfunction(function) else None
    if parsed is None:
        return {}
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount][:1]
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    around = [name for name, cell in cells if _content(cell) is module]
    replaced = _Method(*parsed, frozenset(("self", *arguments, *around)))
    return _reads_in(lambda name: replaced if name == "forward" else _method(owner, name))


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that was deleted, or is not set yet
        return None


@cache
def _method(owner: Any, name: str) -> _Method | None:
    """Parsed only where the forward leads to it: sources take long to read."""
    method = getattr(owner, name, None)
    parsed = _parsed(method) if inspect.isfunction(method) else None
    return _Method(*parsed) if parsed is not None else None


class _Method(NamedTuple):
    tree: ast.AST
    origin: Source  # its `code` is the whole text
    own: frozenset[str] = frozenset({"self"})  # names of the module in the text


def _reads_in(method_of: Callable[[str], _Method | None]) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for method in _reached_from("forward", method_of):
        for child, line in _weight_reads(method):
            code = ast.get_source_segment(method.origin.code, line) or ""
            place = replace(method.origin, line=method.origin.line + line.lineno - 1, code=" ".join(code.split()))
            found.setdefault(child, place)
    return found


def _parsed(method: Callable[..., object]) -> tuple[ast.AST, Source] | None:
    method = inspect.unwrap(method)
    code = getattr(method, "__code__", None)
    if code is None or is_machinery(code) or is_peft(code):
        return None
    try:
        lines, first = inspect.getsourcelines(method)
        text = textwrap.dedent("".join(lines))
        return ast.parse(text), Source(shown(code.co_filename), first, code.co_name, text, library=is_fetched(code))
    except (OSError, SyntaxError, TypeError):  # no source: a notebook, a compiled or generated method
        return None


def _reached_from(start: str, method_of: Callable[[str], _Method | None]) -> Iterator[_Method]:
    """The method `start`, those that it calls on self, and those that these call."""
    pending, seen = [start], set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        method = method_of(name)
        if method is not None:
            yield method
            pending += [node.attr for node in ast.walk(method.tree) if _is_child(node, method)]


def _is_child(node: ast.AST, method: _Method) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in method.own


def _weight_reads(method: _Method) -> Iterator[tuple[str, ast.expr]]:
    """`self.child.weight`, but for looks at its metadata and type checks."""
    tree = method.tree
    harmless = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in _METADATA}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "hasattr", "getattr", "id"):
            harmless |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "weight" and _is_child(node.value, method) and id(node) not in harmless:
            yield node.value.attr, node
