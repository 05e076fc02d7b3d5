"""What a failed forward carries as data: the torch function that raised, with its operands, and what the failing lines read."""

from __future__ import annotations

import ast
import inspect
import textwrap
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from peft_inspect.records import text_of
from peft_inspect.structure.source.lines import is_machinery, is_peft

_CONTRACTED = {"matmul", "mm", "bmm", "rmatmul"}
_BROADCAST = {"add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "div", "rdiv", "truediv", "where", "maximum", "minimum"}


class Apart(NamedTuple):
    """Two sizes that had to agree and do not; the axis they are sizes of, counted from either end of the wider operand."""

    from_right: int
    from_left: int
    first: int
    second: int


@dataclass(frozen=True)
class Failure:
    """A forward that raised."""

    error: Exception
    operation: str = ""  # name of the torch function that raised; empty where Python code did
    operands: tuple[Any, ...] = ()  # everything that it was given

    @property
    def said(self) -> str:
        """The first line of the error, for notes."""
        return text_of(self.error).splitlines()[0][:120]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensors among the operands."""
        return [operand for operand in self.operands if isinstance(operand, torch.Tensor)]

    @property
    def apart(self) -> Iterator[Apart]:
        """Sizes of the first two operands that had to agree, from the last axis on."""
        if len(self.tensors) < 2:
            return
        first, second = (tuple(tensor.shape) for tensor in self.tensors[:2])
        operation = self.operation.strip("_")
        if operation == "linear" or (operation in _CONTRACTED and len(second) > 1):
            width = second[-1 if operation == "linear" else -2]
            if first[-1] != width:
                yield Apart(-1, len(first) - 1, first[-1], width)
        elif operation in _BROADCAST:
            for axis in range(-1, -min(len(first), len(second)) - 1, -1):
                if first[axis] != second[axis] and 1 not in (first[axis], second[axis]):
                    yield Apart(axis, max(len(first), len(second)) + axis, first[axis], second[axis])

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """Names that are None in the failing statement, in the conditions of a raise, and in the calls that led there."""
        names: list[str] = []
        if self.tensors:  # sizes or kinds are at fault, not what is absent
            return ()
        for frame, line in self._frames:
            tested = [name for test in _presence_tests(frame.f_code, line) for name in test]
            found = [name for name in (*tested, *_read(frame.f_code, line)) if name in frame.f_locals and frame.f_locals[name] is None]
            if not found:
                break
            names += found
        return tuple(dict.fromkeys(names))

    @cached_property
    def present(self) -> tuple[str, ...]:
        """Names that a condition compared with None, none of which is, and raised."""
        if self.operation or not self._frames:
            return ()
        frame, line = self._frames[0]
        nearest = next(_presence_tests(frame.f_code, line), ())
        return () if any(frame.f_locals.get(name) is None for name in nearest) else nearest

    @property
    def values(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Tensors that the model's functions had at hand, by name, those of the innermost first."""
        for frame, _ in self._frames:
            yield from ((name, value) for name, value in frame.f_locals.items() if isinstance(value, torch.Tensor))

    @cached_property
    def _frames(self) -> list[tuple[FrameType, int]]:
        """The model's own frames with their lines, innermost first."""
        around = reversed(list(traceback.walk_tb(self.error.__traceback__)))
        return [(frame, line) for frame, line in around if not is_machinery(frame.f_code) and not is_peft(frame.f_code)]


class Watched(TorchFunctionMode):
    """Remembers the torch function that raised last, with what it was given.

    Such a mode may change which kernels run (torch's fused encoder), and so must not be active where a model is judged.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last = Failure(Exception())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except Exception as error:
            self._last = Failure(error, getattr(func, "__name__", ""), (*args, *(kwargs or {}).values()))
            raise

    def failure(self, error: Exception) -> Failure:
        """What is known of an error that left the forward; it is forgotten here, lest it keep itself and its frames alive."""
        last, self._last = self._last, Failure(Exception())
        wrapped = any(last.error is inner for inner in (error, error.__cause__, error.__context__))
        return replace(last, error=error) if wrapped else Failure(error)


def _statements(code: CodeType, line: int) -> list[ast.stmt]:
    """The statements around a line of a function, outermost first."""
    try:
        lines, start = inspect.getsourcelines(code)
        tree = ast.increment_lineno(ast.parse(textwrap.dedent("".join(lines))), start - 1)
    except (OSError, SyntaxError):  # code without a file
        return []
    around: list[ast.stmt] = []
    node: ast.AST | None = tree
    while node is not None:
        children = (child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.stmt, ast.ExceptHandler)))
        node = next((child for child in children if child.lineno <= line <= (child.end_lineno or line)), None)
        if isinstance(node, ast.stmt):
            around.append(node)
    return around


def _read(code: CodeType, line: int) -> Iterator[str]:
    """Names that the statement on a line reads; of one with a body, its head."""
    for statement in _statements(code, line)[-1:]:
        if isinstance(statement, (ast.Raise, ast.Assert)):
            return
        heads = [getattr(statement, part) for part in ("test", "iter", "subject") if hasattr(statement, part)]
        heads += [item.context_expr for item in getattr(statement, "items", ())]
        for node in (node for head in heads or [statement] for node in ast.walk(head)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                yield node.id


def _presence_tests(code: CodeType, line: int) -> Iterator[tuple[str, ...]]:
    """Names that the conditions of a raise, or an assertion, on a line compare with None: condition by condition, nearest first."""
    around = _statements(code, line)
    if around and isinstance(around[-1], (ast.Raise, ast.Assert)):
        tests = [statement.test for statement in reversed(around) if isinstance(statement, (ast.If, ast.Assert))]
        yield from filter(None, (tuple(dict.fromkeys(_compared(test))) for test in tests))


def _compared(test: ast.expr) -> Iterator[str]:
    for node in ast.walk(test):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            yield node.left.id
