"""The two examples of a rule as one program of its own: what `explain` prints, and what runs when it is pasted into a file."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from peft_inspect.rules.rule import Rule

_CHECKED = """print(peft_inspect.check(example.model, example.batch, loss=example.loss, optimizer=example.optimizer{more}))"""
_WATCHED = """with peft_inspect.watch(fail_on="never") as watched:
            example.step()
        print(watched.report)"""
_COMPARED = """model, base = example.merged
        print(peft_inspect.inspect(peft_inspect.Request(model, adapter=example.adapter, base=base)))"""
_TRIED = """


if __name__ == "__main__":
    for example in (broken(), fixed()):
        {how}
"""


def program(rule: Rule[Any]) -> str:
    """`broken` and `fixed` with all that they call and import, and the lines that inspect both and print the reports."""
    source = inspect.getsource(importlib.import_module(rule.broken.__module__))
    module = ast.parse(source)
    defined = {name: node for node in module.body for name in _names_of(node)}
    needed = _needed(defined)
    imports = [line for node in _imports(module) if (line := _only(node, needed))]
    parts = [ast.get_source_segment(source, node) or "" for node in module.body if not needed.isdisjoint(_names_of(node))]
    definitions = "\n\n\n".join(parts)
    head = "\n".join(("from __future__ import annotations", "", *imports, "", "import peft_inspect"))
    return f"{head}\n\n\n{definitions}{_TRIED.format(how=_how(definitions))}"


def _how(definitions: str) -> str:
    """The lines that inspect an example, by what it holds."""
    held = {keyword.arg for call in ast.walk(ast.parse(definitions)) if isinstance(call, ast.Call) for keyword in call.keywords}
    if "step" in held:
        return _WATCHED
    if "merged" in held:
        return _COMPARED
    return _CHECKED.format(more="".join(f", {name}=example.{name}" for name in ("adapter", "pins") if name in held))


def _needed(defined: Mapping[str, ast.stmt]) -> frozenset[str]:
    """Every name that the examples use, and those that the definitions behind them use."""
    found: set[str] = set()
    pending = ["broken", "fixed"]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            if name in defined:
                pending += (node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name))
    return frozenset(found)


def _names_of(node: ast.stmt) -> tuple[str, ...]:
    """What a statement at the top of a module defines, imports aside."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return (node.name,)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return tuple(target.id for target in targets if isinstance(target, ast.Name))


def _imports(module: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Those at the top, and those for type checkers, which annotations name."""
    for node in module.body:
        for inner in node.body if isinstance(node, ast.If) else (node,):
            if isinstance(inner, ast.Import | ast.ImportFrom) and getattr(inner, "module", None) != "__future__":
                yield inner


def _only(node: ast.Import | ast.ImportFrom, needed: frozenset[str]) -> str:
    """The import with what of it is needed; nothing where nothing is."""
    kept = [alias for alias in node.names if (alias.asname or alias.name).partition(".")[0] in needed]
    if not kept:
        return ""
    if isinstance(node, ast.Import):
        return ast.unparse(ast.Import(kept))
    return ast.unparse(ast.ImportFrom(node.module, kept, node.level))
