"""Layers that nothing called: whether code would call them for another batch, read from the source of the module around.

A layer behind `if pixel_values is not None`, after an early return, or in a method that the forward does not
call waits for other inputs. One behind `if self.fused is not None`, or mentioned nowhere, is out of use.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from peft_inspect.records import Source
from peft_inspect.structure.source.lines import source
from peft_inspect.walk import defined_in


def waiting(model: nn.Module, paths: Iterable[str], executed: Container[str]) -> dict[str, Source]:
    """Those of the uncalled layers that the code calls only under a condition on its inputs, with the line that does.

    Where the forward around did not run itself (another method of the module did), all that it calls waits.
    """
    found = {}
    for path in paths:
        owner, module, name = _around(model, path)
        found[path] = _line(module, name, ran=owner in executed)
    return {path: line for path, line in found.items() if line is not None}


def _around(model: nn.Module, path: str) -> tuple[str, nn.Module, str]:
    """The nearest module around with code of its own, and the name it has for what leads to the layer."""
    owner, _, name = path.rpartition(".")
    module = model.get_submodule(owner)
    while owner and isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        owner, _, name = owner.rpartition(".")
        module = model.get_submodule(owner)
    return owner, module, name


def _line(owner: nn.Module, name: str, *, ran: bool) -> Source | None:
    """The first mention, where every mention that the forward leads to depends on the inputs."""
    code = _Code(owner, name)
    mentions = list(code.mentions(vars(owner).get("forward") or type(owner).forward))
    if not mentions:  # only in methods that the forward does not call, as for generation
        mentions = [(line, True) for method in _methods(type(owner)) for line, _ in code.mentions(method)]
    return source(mentions[0][0]) if mentions and (not ran or all(conditional for _, conditional in mentions)) else None


def _methods(kind: type) -> Iterator[Callable[..., Any]]:
    """Methods besides the forward: one that was overridden or patched over calls nothing any more."""
    for base in kind.__mro__:
        if defined_in(base).split(".")[0] != "torch":
            yield from (value for name, value in vars(base).items() if inspect.isfunction(value) and name not in _NEVER)


_NEVER = ("__init__", "forward")
_LEAVING = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_Mention = tuple[tuple[Any, int], bool]  # a line, and whether it depends on the inputs


@dataclass
class _Code:
    """Where the methods of a module mention one of its children."""

    owner: nn.Module
    name: str
    entered: list[str] = field(default_factory=list)  # methods being read: one that calls itself is read once

    def mentions(self, function: Callable[..., Any]) -> Iterator[_Mention]:
        """Every mention in a method and in those that it calls."""
        function = inspect.unwrap(getattr(function, "__func__", function))
        if function.__qualname__ in self.entered:
            return
        try:
            lines, first = inspect.getsourcelines(function)
            definition = ast.parse(textwrap.dedent("".join(lines))).body[0]
        except (OSError, TypeError, SyntaxError):  # code without a file
            return
        if isinstance(definition, ast.FunctionDef):
            self.entered.append(function.__qualname__)
            body = _Body(self, function.__code__, max(first, 1) - 1, _inputs(definition))
            yield from body.block(definition.body, conditional=False)
            self.entered.pop()


def _inputs(definition: ast.FunctionDef) -> set[str]:
    arguments = definition.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in every if argument is not None} - {"self"}


@dataclass
class _Body:
    """One method, read top to bottom; `tainted` are the names whose values come from its inputs."""

    code: _Code
    compiled: Any
    offset: int
    tainted: set[str]

    def block(self, statements: Sequence[ast.stmt], *, conditional: bool) -> Iterator[_Mention]:
        """Mentions in statements that follow each other; after `if …: return` the rest hangs on that test too."""
        for statement in statements:
            if isinstance(statement, ast.If):
                inside = conditional or self._from_inputs(statement.test)
                yield from self._expression(statement.test, conditional=conditional)
                yield from self.block(statement.body, conditional=inside)
                yield from self.block(statement.orelse, conditional=inside)
                leaves = any(part and isinstance(part[-1], _LEAVING) for part in (statement.body, statement.orelse))
                conditional = inside if leaves else conditional
            elif isinstance(statement, (ast.For, ast.While)):
                head = statement.iter if isinstance(statement, ast.For) else statement.test
                yield from self._expression(head, conditional=conditional)
                if isinstance(statement, ast.For) and self._from_inputs(head):
                    self._taint(statement.target)
                inside = conditional or self._from_inputs(head)
                yield from self.block([*statement.body, *statement.orelse], conditional=inside)
            elif isinstance(statement, (ast.With, ast.Try)):
                parts = [*statement.body, *getattr(statement, "orelse", ()), *getattr(statement, "finalbody", ())]
                yield from self.block(parts, conditional=conditional)
            else:
                yield from self._expression(statement, conditional=conditional)
                self._assign(statement)

    def _assign(self, statement: ast.stmt) -> None:
        """Names that a statement makes out of the inputs."""
        if isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and self._from_inputs(statement):
            for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
                self._taint(target)

    def _expression(self, node: ast.AST, *, conditional: bool) -> Iterator[_Mention]:
        if isinstance(node, ast.IfExp):
            yield from self._expression(node.test, conditional=conditional)
            inside = conditional or self._from_inputs(node.test)
            yield from self._expression(node.body, conditional=inside)
            yield from self._expression(node.orelse, conditional=inside)
            return
        if isinstance(node, ast.Subscript) and self._from_inputs(node.slice):  # one of a list: which one, the inputs say
            conditional = True
        if isinstance(node, ast.Attribute) and node.attr == self.code.name:
            yield (self.compiled, self.offset + node.lineno), conditional
        method = _own_method(node)
        if method is not None and inspect.isroutine(called := getattr(type(self.code.owner), method, None)):
            yield from ((line, conditional or inner) for line, inner in self.code.mentions(called))
        for child in ast.iter_child_nodes(node):
            yield from self._expression(child, conditional=conditional)

    def _from_inputs(self, node: ast.AST) -> bool:
        return any(isinstance(part, ast.Name) and part.id in self.tainted for part in ast.walk(node))

    def _taint(self, target: ast.AST) -> None:
        self.tainted |= {part.id for part in ast.walk(target) if isinstance(part, ast.Name)} - {"self"}


def _own_method(node: ast.AST) -> str | None:
    """The name in `self.name(…)`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        value = node.func.value
        return node.func.attr if isinstance(value, ast.Name) and value.id == "self" else None
    return None
