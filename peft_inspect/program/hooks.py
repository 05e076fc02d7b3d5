"""Where a program's step shows itself: the outermost call of a module, the outermost backward, the optimizer's step."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.jit import is_tracing  # type: ignore[attr-defined]
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from peft_inspect.reversible import Apart, hooked, patched
from peft_inspect.run import patches

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class Listener(Protocol):
    """Who is told. Whatever these raise reaches the program."""

    def called(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module is called, and not by another one."""

    def recorded(self) -> None:
        """A module is called to record what it does: no step, and nothing else may be on the way."""

    def returned(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """That call has ended."""

    def backward(self, tensors: tuple[Any, ...], run: Callable[[float], None]) -> None:
        """A backward is to run, and not inside another one: `run` runs it, with the loss multiplied by a number."""

    def again(self, tensors: tuple[Any, ...]) -> None:
        """A backward within that backward: what activation checkpointing has run again."""

    def cleared(self) -> None:
        """Gradients are about to be cleared."""

    def step_begins(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step."""

    def step_ended(self, optimizer: Optimizer) -> None:
        """It has stepped."""

    def step_skipped(self, optimizer: Optimizer) -> None:
        """A gradient scaler has left the step out, because it found gradients that are not finite."""


class Hooks:
    """Tells a listener of the steps of this process and of the thread that trains, as long as they are installed."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._installed = Apart()
        self._process = os.getpid()
        self._thread = threading.local()
        self._in_backward = False
        self._steps = 0

    def install(self) -> None:
        """Begin. Global hooks, because a hook on a module changes what torch runs there."""
        self._installed.begin(
            hooked(
                partial(register_module_forward_pre_hook, self._enter),
                partial(register_module_forward_hook, self._leave, with_kwargs=True, always_call=True),
                partial(register_optimizer_step_pre_hook, self._before_step),
                partial(register_optimizer_step_post_hook, self._after_step),
            ),
            patched(
                (*patches.BACKWARD, self._backward),
                (*patches.SCALER_STEP, self._scaler_step),
                *((*place, self._zero_grad) for place in patches.ZERO_GRAD),
            ),
        )

    def remove(self) -> None:
        """End. Nothing is left in the process."""
        self._installed.end()

    @property
    def _elsewhere(self) -> bool:
        """Whether this is a process that the program has forked."""
        return os.getpid() != self._process

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        depth = getattr(self._thread, "depth", 0)
        self._thread.depth = depth + 1
        if depth == 0 and is_tracing():  # type: ignore[no-untyped-call]
            self._listener.recorded()
        elif depth == 0 and self._listens():
            self._listener.called(module, args)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], *kwargs_and_output: Any) -> None:
        """The end of a call. After an exception torch gives no keyword arguments, also to hooks that ask for them."""
        self._thread.depth = depth = max(getattr(self._thread, "depth", 1) - 1, 0)
        if depth == 0 and len(kwargs_and_output) == 2 and self._listens():
            self._listener.returned(module, args, kwargs_and_output[0])

    @contextmanager
    def calling(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
        """A module is called inside, and no hook is there to tell of it."""
        self._enter(module, args)
        try:
            yield
        finally:
            self._leave(module, args, kwargs, None)

    def _listens(self) -> bool:
        """Whether what is called here may be part of a step: not within a backward, nor where a program is recorded instead of run."""
        return not (self._in_backward or self._elsewhere or is_tracing())  # type: ignore[no-untyped-call]

    def _backward(self, original: Callable[..., None]) -> Callable[..., None]:
        @wraps(original)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            roots = (tensors,) if isinstance(tensors, torch.Tensor) else tuple(tensors) if isinstance(tensors, (tuple, list)) else ()
            if self._elsewhere:
                original(tensors, *args, **kwargs)
            elif self._in_backward:
                self._listener.again(roots)
                original(tensors, *args, **kwargs)
            else:
                self._in_backward = True
                try:
                    self._listener.backward(roots, lambda scale: original(_scaled(tensors, scale), *args, **kwargs))
                finally:
                    self._in_backward = False

        return backward

    def in_thread(self) -> Callable[[], AbstractContextManager[None]]:
        """For a thread that work is handed to: what is called there is called by a module, where one runs here."""
        depth = getattr(self._thread, "depth", 0)

        @contextmanager
        def around() -> Iterator[None]:
            before, self._thread.depth = getattr(self._thread, "depth", 0), depth
            try:
                yield
            finally:
                self._thread.depth = before

        return around

    def _before_step(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if not self._elsewhere:
            self._steps += 1
            self._listener.step_begins(optimizer)

    def _after_step(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if not self._elsewhere:
            self._thread.depth = 0  # an exception that ended a forward may have skipped its end
            self._listener.step_ended(optimizer)

    def _zero_grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def zero_grad(*args: Any, **kwargs: Any) -> Any:
            if not self._elsewhere:
                self._listener.cleared()
            return original(*args, **kwargs)

        return zero_grad

    def _scaler_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def step(scaler: Any, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            before = self._steps
            result = original(scaler, optimizer, *args, **kwargs)
            if not self._elsewhere and self._steps == before:
                self._listener.step_skipped(optimizer)
            return result

        return step


def _scaled(tensors: Any, scale: float) -> Any:
    """What a backward starts from, multiplied as a gradient scaler does: in single precision."""
    if scale == 1.0:
        return tensors
    if not isinstance(tensors, torch.Tensor):
        return [_scaled(tensor, scale) for tensor in tensors]
    return tensors.float() * min(scale, torch.finfo(tensors.dtype).max / 2)
