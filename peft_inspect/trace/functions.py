"""Custom autograd functions in a run that is followed: what they run again in their backward, and which return no gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import BackwardCFunction

from peft_inspect.reversible import patched
from peft_inspect.run import patches
from peft_inspect.run.graph import Node, is_opaque, leaves, upstream
from peft_inspect.run.runs import backward
from peft_inspect.structure.source.lines import Line, is_library, is_machinery, nearest_line
from peft_inspect.structure.source.statements import returning_line

if TYPE_CHECKING:
    from torch import Tensor

    from peft_inspect.records import Subject

Silence = tuple[str, Line | None, Line | None, set[int]]  # the function, its return, its call, and the leaves it keeps gradients from


class CustomFunctions:
    """The custom autograd functions of one run."""

    def __init__(self) -> None:
        self._lines: dict[Node, Line | None] = {}
        self.again: list[Tensor] = []  # outputs of what ran again in the backward, as activation checkpointing does
        self.silent: list[Silence] = []

    def watching(self) -> patched:
        """Note the line of every call in the forward: a node of the graph does not know it."""
        return patched((*patches.FUNCTION_APPLY, self._noting))

    def _noting(self, apply: Any) -> Any:
        def noting(cls: type, *args: Any, **kwargs: Any) -> Any:
            outputs = apply.__get__(None, cls)(*args, **kwargs)  # a classmethod, one written in C from torch 2.14 on
            for output in outputs if isinstance(outputs, tuple) else (outputs,):
                if isinstance(output, torch.Tensor) and output.grad_fn is not None:
                    self._lines[output.grad_fn] = nearest_line()
            return outputs

        return classmethod(noting)

    def run_backward(self, subject: Subject, loss: Tensor) -> None:
        """The backward, where any function has a say in it."""
        if self.awaiting(loss):
            started = loss.reshape(())  # the run itself starts at this one
            with patched((*patches.BACKWARD, self._started_from), (*patches.GRAD, self._started_from)):
                backward(subject, started)

    def awaiting(self, loss: Tensor) -> bool:
        """Have each function of this graph noted when its backward has run; whether there is any."""
        nodes = upstream([loss.grad_fn])
        if not is_opaque(nodes):
            return False
        for node in nodes:
            if isinstance(node, BackwardCFunction):
                node.register_hook(self._after(node))
        return True

    def _after(self, node: Node) -> Callable[..., None]:
        following = [after for after, _ in node.next_functions]

        def after_backward(grad_inputs: Any, grad_outputs: Any) -> None:
            kept = [after for after, gradient in zip(following, grad_inputs, strict=False) if after is not None and gradient is None]
            if kept and any(gradient is not None for gradient in grad_outputs):
                name, called = node.name().removesuffix("Backward"), self._lines.get(node)
                self.silent.append((name, backward_line(node, none=True), called, leaves(upstream(kept))))

        return after_backward

    def _started_from(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def start(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            roots = tensors if isinstance(tensors, (tuple, list)) else (tensors,)
            self.again += [tensor for tensor in roots if isinstance(tensor, torch.Tensor)]
            return original(tensors, *args, **kwargs)

        return start


def backward_line(node: Node, *, none: bool = False) -> Line | None:
    """The line of the user's that returns what the backward of a custom function gives, None where that is what is looked for."""
    kind = getattr(type(node), "_forward_cls", None)
    code = getattr(inspect.unwrap(kind.backward), "__code__", None) if kind is not None else None
    if code is None or is_machinery(code) or is_library(code):
        return None
    return returning_line(code, none=none)
