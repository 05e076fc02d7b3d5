"""Statements of one function: what it returns, and where it writes a name. Only the function's own lines are parsed."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from types import CodeType

from peft_inspect.structure.source.lines import Line


def returning_line(code: CodeType, *, none: bool = False) -> Line | None:
    """The line that returns what a function gives, where it is one line; of a lambda, its own.

    `none`: of several returns, the one is meant that gives None for the most.
    """
    if code.co_name == "<lambda>":
        return code, min((line for *_, line in code.co_lines() if line), default=code.co_firstlineno)
    returns = [node for node in _statements(code) if isinstance(node, ast.Return)]
    if none:
        most = max(map(_nones, returns), default=0)
        returns = [node for node in returns if _nones(node) == most]
    return (code, returns[0].lineno) if len(returns) == 1 else None


def writing_line(code: CodeType, name: str) -> Line | None:
    """The last line of a function that gives a value to `name`: a variable, an item of it, or the entry of a dict."""
    lines = [line for node in _statements(code) for line in _writes(node, name)]
    return (code, max(lines)) if lines else None


def _nones(node: ast.Return) -> int:
    members = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
    return sum(value is None or (isinstance(value, ast.Constant) and value.value is None) for value in members)


def _writes(node: ast.AST, name: str) -> Iterator[int]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, (ast.AugAssign, ast.AnnAssign)) else []
    for target in targets:
        inner = target
        while isinstance(inner, ast.Subscript) and not _is(inner.slice, name):
            inner = inner.value
        if isinstance(inner, ast.Subscript) or (isinstance(inner, ast.Name) and inner.id == name):
            yield node.lineno  # type: ignore[attr-defined]
    if isinstance(node, ast.Dict):
        written = (key for key, value in zip(node.keys, node.values, strict=True) if _is(key, name) and not isinstance(value, ast.Name))
        yield from (key.lineno for key in written if key is not None)


def _is(node: ast.AST | None, name: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == name


@cache
def _statements(code: CodeType) -> tuple[ast.AST, ...]:
    """The nodes of a function, those of functions inside it left out, with the lines of its file; none where it has no source."""
    try:
        lines, first = inspect.getsourcelines(code)
        (function,) = ast.parse(textwrap.dedent("".join(lines))).body
    except (OSError, SyntaxError, ValueError):
        return ()
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return ()
    ast.increment_lineno(function, first - 1)
    found: list[ast.AST] = list(function.body)
    for node in found:  # grows while it is walked
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            found += ast.iter_child_nodes(node)
    return tuple(found)
