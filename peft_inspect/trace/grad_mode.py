"""Who switched gradients off: every Python switch of the grad mode is watched while a model runs."""

from __future__ import annotations

import inspect
import sys
import threading
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import CheckpointFunction

from peft_inspect.records import GradRegion, RegionKind, Source
from peft_inspect.reversible import patched
from peft_inspect.run import patches
from peft_inspect.structure.source.lines import (
    Line,
    decorator_line,
    frames,
    is_library,
    is_machinery,
    is_peft,
    line_above,
    nearest_line,
    source,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, FrameType

_SWITCH_NAMES = ("no_grad", "inference_mode", "set_grad_enabled", "grad")


def _generator() -> Iterator[None]:
    yield


_MODULE_CALL = torch.nn.modules.module.__file__
_DECORATED = frozenset(torch.no_grad()(function).__code__ for function in (lambda: None, _generator))


@dataclass
class GradSwitches:
    """The last switch that turned gradients off, while they are off; None while they are on.

    `overruled` are lines whose switches are to have no effect: how a fix is tried.
    Regions inside a custom autograd function (reentrant checkpointing is one) are switched off by
    autograd itself; for these the function's frame is looked up when it is asked for.
    """

    overruled: frozenset[Source] = frozenset()
    _regions: dict[Any, GradRegion] = field(default_factory=dict)
    _of_thread: threading.local = field(default_factory=threading.local)

    @property
    def off(self) -> tuple[RegionKind, Line | None] | None:
        """Which switch turned gradients off in this thread, and its line."""
        return getattr(self._of_thread, "off", None)

    @off.setter
    def off(self, switch: tuple[RegionKind, Line | None] | None) -> None:
        self._of_thread.off = switch

    def in_thread(self) -> Callable[[], AbstractContextManager[None]]:
        """For a thread that work is handed to: gradients are on there at first, and a helper may tell it that they are off here."""
        handed = self.off

        @contextmanager
        def around() -> Iterator[None]:
            before, self.off = self.off, None
            self._of_thread.handed = handed
            try:
                yield
            finally:
                self.off, self._of_thread.handed = before, None

        return around

    def region(self) -> GradRegion | None:
        """The region that the caller runs in; None while gradients are on."""
        if torch.is_grad_enabled():
            return None
        if self.off is None:
            return _function_region()
        if self.off not in self._regions:
            kind, line = self.off
            self._regions[self.off] = GradRegion(kind, source(line))
        return self._regions[self.off]

    @property
    def line(self) -> Line | None:
        """The line of the switch, while gradients are off."""
        return self.off[1] if self.off is not None else None

    @property
    def is_off(self) -> bool:
        """Whether Python code switched gradients off; custom autograd functions do not count."""
        return self.off is not None and not torch.is_grad_enabled()

    def watching(self) -> patched:
        """Watch the switches that torch offers: `no_grad`, `inference_mode` and `set_grad_enabled`."""
        self.off = None if torch.is_grad_enabled() else ("before", None)
        switches = {
            patches.NO_GRAD: self._no_grad,
            patches.INFERENCE_MODE: self._inference_mode,
            patches.INFERENCE_MODE_LEFT: self._leaving,
            patches.SET_GRAD_ENABLED: self._set_grad_enabled,
            patches.SET_GRAD_ENABLED_AGAIN: self._set_grad_enabled_again,
            patches.SET_GRAD_ENABLED_LEFT: self._leaving,
        }
        return patched(*((*place, partial(_replacement, make)) for place, make in switches.items()))

    def _no_grad(self, enter: Callable[..., Any]) -> Callable[..., Any]:
        def __enter__(switch: torch.no_grad) -> None:  # noqa: N807 - stands in for the method of that name
            if self._is_overruled():
                switch.prev = torch.is_grad_enabled()
                return
            self._switching("no_grad", lambda: enter(switch))

        return __enter__

    def _inference_mode(self, enter: Callable[..., Any]) -> Callable[..., Any]:
        def __enter__(switch: torch.inference_mode) -> None:  # noqa: N807
            if self._is_overruled():
                mode, switch.mode = switch.mode, False
                enter(switch)
                switch.mode = mode
                return
            self._switching("inference_mode", lambda: enter(switch))

        return __enter__

    def _leaving(self, leave: Callable[..., Any]) -> Callable[..., Any]:
        def __exit__(switch: Any, *error: object) -> None:  # noqa: N807
            leave(switch, *error)
            if torch.is_grad_enabled():
                self.off = None

        return __exit__

    def _set_grad_enabled(self, init: Callable[..., Any]) -> Callable[..., Any]:
        def __init__(switch: torch.set_grad_enabled, mode: bool) -> None:  # noqa: N807
            self._switching("set_grad_enabled", lambda: init(switch, mode or self._is_overruled()))

        return __init__

    def _set_grad_enabled_again(self, enter: Callable[..., Any]) -> Callable[..., Any]:
        def __enter__(switch: torch.set_grad_enabled) -> None:  # noqa: N807
            self._switching("set_grad_enabled", lambda: enter(switch))

        return __enter__

    def _switching(self, kind: RegionKind, switch: Callable[[], None]) -> None:
        was_on = torch.is_grad_enabled()
        switch()
        is_on = torch.is_grad_enabled()
        if was_on and not is_on:
            line = _switch_line()
            handed = getattr(self._of_thread, "handed", None)
            self.off = handed if line is None and handed is not None else (kind, line)
        elif is_on:
            self.off = None

    def _is_overruled(self) -> bool:
        return bool(self.overruled) and source(_switch_line()) in self.overruled


def _replacement(make: Callable[[Any], Any], original: Any) -> Any:
    return wraps(original)(make(original))


def _switch_line() -> Line | None:
    """The line that switches: the decorator of the function that runs without gradients, else the nearest line of code.

    A library function that switches gradients off for its caller (`generate()`) is the caller's line: the
    library does what it promises there, and the call is what has to change. The forward of a module is called by
    its model, whose author put the decorator there.
    """
    for frame in frames(sys._getframe(1)):
        if frame.f_code in _DECORATED:
            function = _undecorated(frame)
            if function is None or (is_library(function.__code__) and not _is_forward(frame)):
                return line_above(frame)
            return decorator_line(function.__code__, _SWITCH_NAMES)
        if not is_machinery(frame.f_code) and not is_peft(frame.f_code):
            return frame.f_code, frame.f_lineno
    return None


def _undecorated(frame: FrameType) -> Callable[..., Any] | None:
    function = frame.f_locals.get("func")
    while function is not None and (hasattr(function, "__wrapped__") or not hasattr(function, "__code__")):
        function = getattr(function, "__wrapped__", None) or getattr(function, "func", None)
    return function


def _is_forward(decorated: FrameType) -> bool:
    """Whether it is a module that runs, through its own call."""
    caller = decorated.f_back
    return caller is not None and caller.f_code.co_filename == _MODULE_CALL


def _function_region() -> GradRegion:
    """The custom autograd function that the caller runs in, and whether any of its inputs requires grad."""
    for frame in frames(sys._getframe(1)):
        function = _custom_function(frame.f_code)
        if function is not None:
            kind: RegionKind = "reentrant-checkpoint" if issubclass(function, CheckpointFunction) else "autograd-function"
            return GradRegion(kind, source(line_above(frame)), _takes_gradients(frame))
    return GradRegion("before", source(nearest_line(2)))


@cache
def _custom_function(code: CodeType) -> type | None:
    """The custom autograd function whose forward has this code.

    `apply`, which calls it, has no frame from torch 2.14 on, and is often called through a name of its own.
    """
    classes: list[type] = [torch.autograd.Function]
    for kind in classes:  # grows while it is walked
        classes += kind.__subclasses__()
        if getattr(inspect.unwrap(kind.forward), "__code__", None) is code:  # type: ignore[attr-defined]
            return kind
    return None


def _takes_gradients(frame: FrameType) -> bool:
    """Whether an input of the custom autograd function that runs in this frame requires grad."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + bool(code.co_flags & inspect.CO_VARARGS) + code.co_kwonlyargcount]
    given = [frame.f_locals[name] for name in names if name in frame.f_locals]
    if given and isinstance(given[0], FunctionCtx):
        return any(given[0].needs_input_grad)  # type: ignore[attr-defined]
    return requires_grad(item for value in given for item in (value if isinstance(value, tuple) else (value,)))


def requires_grad(inputs: Iterable[object]) -> bool:
    """Whether any input of an autograd function requires grad; autograd looks at the tensors themselves, not into tuples."""
    return any(isinstance(item, torch.Tensor) and item.requires_grad for item in inputs)


def replaced_checkpoint(apply: Callable[..., Any]) -> patched:
    """Have reentrant checkpointing call `apply`, wherever `checkpoint` was imported to; it takes what the autograd function takes."""
    return patched((*patches.REENTRANT_CHECKPOINT, lambda _: type("StandIn", (), {"apply": staticmethod(apply)})))


def opened(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
    """A checkpointed block that would be run again in the backward, run as part of the graph instead: what happens in it shows."""
    if torch.is_grad_enabled() and requires_grad(args):
        return function(*args)
    return CheckpointFunction.apply(function, preserve_rng_state, *args)  # type: ignore[no-untyped-call]
