"""What a program has compiled runs as it would unwatched: a hook or a mode would be compiled with it, or keep it from being compiled.

So nothing of this tool is there while compiled code runs, and its step tells no more than gradients and updates. Where these show a
fault, a further step runs what was compiled as it was written.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial, wraps
from typing import Any, Protocol

import torch
from torch import nn

from peft_inspect.internals import COMPILER, ORIGINAL, find
from peft_inspect.reversible import Apart, patched
from peft_inspect.run import patches


class Bystander(Protocol):
    """Who steps aside."""

    @property
    def as_written(self) -> bool:
        """Whether compiled code is to run as it was written, and to be watched."""

    def stepping_aside(self) -> AbstractContextManager[None]:
        """Nothing is watched inside."""

    def calling(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AbstractContextManager[None]:
        """A compiled module is called inside."""


class Compiled:
    """Notes what is compiled while it is installed, and has it run unwatched."""

    def __init__(self, bystander: Bystander) -> None:
        self._bystander = bystander
        self._installed = Apart()
        self._modules: list[tuple[weakref.ref[nn.Module], Any, Any]] = []  # compiled in place, with what calls them and would have
        self._over = False
        self.ran = False  # a compiled function, which may have called a model

    def install(self) -> None:
        """Begin. What `torch.compile` makes of a module has a class of its own, which is there once anything is compiled."""
        self._installed.begin(patched((*patches.COMPILE, self._compiling)))
        self._wrap_optimized()

    def remove(self) -> None:
        """End, for a while."""
        self._installed.end()

    def end(self) -> None:
        """For good. Compiled modules are left without a trace, compiled functions with one that does nothing."""
        self._over = True
        for reference, calling, made in self._modules:
            if (module := reference()) is not None and module._compiled_call_impl is calling:
                module._compiled_call_impl = made
        self._modules.clear()

    def _wrap_optimized(self) -> None:
        kind = getattr(sys.modules.get(COMPILER), "OptimizedModule", None)
        if kind is not None and not hasattr(vars(kind)["__call__"], _MARK):
            self._installed.begin(patched((kind, "__call__", self._calling_optimized)))

    def _compiling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def compile_(model: Any = None, *args: Any, **kwargs: Any) -> Any:
            made = original(model, *args, **kwargs)
            self._wrap_optimized()
            if model is None or isinstance(made, nn.Module) or not callable(made):
                return made
            owner = getattr(model, "__self__", None)
            compiles_itself = getattr(model, "__func__", model) is find("call_impl")
            module = owner if isinstance(owner, nn.Module) and compiles_itself else None
            calling = self._calling(model, made, module)
            if module is not None:
                self._modules.append((weakref.ref(module), calling, made))
            return calling

        return compile_

    def _calling(self, written: Callable[..., Any], made: Callable[..., Any], module: nn.Module | None) -> Callable[..., Any]:
        reference = None if module is None else weakref.ref(module)

        @wraps(made)
        def call(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or self._over:
                return made(*args, **kwargs)
            return self._call(written, made, None if reference is None else reference(), args, kwargs)

        return call

    def _calling_optimized(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            return self._call(module._modules[ORIGINAL], partial(original, module), module, args, kwargs)

        setattr(call, _MARK, True)
        return call

    def _call(
        self, written: Callable[..., Any], made: Callable[..., Any], module: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._bystander.as_written:
            return written(*args, **kwargs)
        if module is None:
            self.ran = True
            with self._bystander.stepping_aside():
                return made(*args, **kwargs)
        with self._bystander.calling(module, args, kwargs), self._bystander.stepping_aside():
            return made(*args, **kwargs)


_MARK = "_peft_inspect"
