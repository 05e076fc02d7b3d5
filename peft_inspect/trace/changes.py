"""Who froze a weight, and who switched activation checkpointing on: noted as the program does it, long before its step."""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

from torch.utils.weak import WeakIdKeyDictionary

from peft_inspect.reversible import patched
from peft_inspect.run import patches
from peft_inspect.structure.source.lines import Line, line_above, source

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from peft_inspect.records import Source


class Changes:
    """The lines that froze parameters that trained, and the last one that switched checkpointing on."""

    def __init__(self) -> None:
        self._frozen: Any = WeakIdKeyDictionary()
        self._checkpointing: Line | None = None

    def watching(self) -> patched:
        """What is changed inside is noted."""
        return patched(
            (*patches.REQUIRES_GRAD, self._setting),
            (*patches.REQUIRES_GRAD_CALLED, self._calling),
            (*patches.CHECKPOINTING_ENABLED, self._enabling),
        )

    def frozen_by(self, parameter: nn.Parameter) -> Source | None:
        """The line that froze this parameter, which had required a gradient before."""
        return source(self._frozen.get(parameter))

    @property
    def checkpointing_by(self) -> Source | None:
        """The line that switched activation checkpointing on in a model of transformers."""
        return source(self._checkpointing)

    def _note(self, parameter: nn.Parameter, *, before: bool, after: bool) -> None:
        if before and not after:
            self._frozen[parameter] = line_above(sys._getframe(1))

    def _setting(self, original: Any) -> property:
        def get(parameter: nn.Parameter) -> bool:
            required: bool = original.__get__(parameter)
            return required

        def set_(parameter: nn.Parameter, value: bool) -> None:
            before = original.__get__(parameter)
            original.__set__(parameter, value)
            self._note(parameter, before=before, after=bool(value))

        return property(get, set_)

    def _calling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def requires_grad_(parameter: nn.Parameter, requires_grad: bool = True) -> Any:
            before = parameter.requires_grad
            result = original(parameter, requires_grad)
            self._note(parameter, before=before, after=requires_grad)
            return result

        return requires_grad_

    def _enabling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def enable(*args: Any, **kwargs: Any) -> Any:
            self._checkpointing = line_above(sys._getframe())
            return original(*args, **kwargs)

        return enable
