"""Who froze a weight, switched checkpointing on, put an adapter on, made the optimizer: noted as the program does it, before its step."""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from peft_inspect.reversible import patched
from peft_inspect.run import patches
from peft_inspect.structure.source.lines import Line, line_above, source

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from peft_inspect.records import Source


class Changes:
    """The lines that froze parameters that trained, the last ones that switched checkpointing on and put an adapter on, and the makers."""

    def __init__(self) -> None:
        self._frozen: Any = WeakIdKeyDictionary()
        self._made: Any = WeakIdKeyDictionary()  # optimizers and schedules: the line, and how many adapters were there
        self._checkpointing: Line | None = None
        self._adapted: Line | None = None
        self._adapters = 0
        self._optimizer: Line | None = None

    def watching(self) -> patched:
        """What is changed inside is noted."""
        return patched(
            (*patches.REQUIRES_GRAD, self._setting),
            (*patches.REQUIRES_GRAD_CALLED, self._calling),
            (*patches.CHECKPOINTING_ENABLED, self._enabling),
            (*patches.ADAPTER_INJECTED, self._injecting),
            (*patches.OPTIMIZER_MADE, self._making),
            (*patches.SCHEDULE_MADE, self._making),
        )

    def frozen_by(self, parameter: nn.Parameter) -> Source | None:
        """The line that froze this parameter, which had required a gradient before."""
        return source(self._frozen.get(parameter))

    @property
    def checkpointing_by(self) -> Source | None:
        """The line that switched activation checkpointing on in a model of transformers."""
        return source(self._checkpointing)

    @property
    def adapted_by(self) -> Source | None:
        """The last line that put an adapter on any model."""
        return source(self._adapted)

    @property
    def optimizer_by(self) -> Source | None:
        """The line that made the last optimizer, which may be gone again."""
        return source(self._optimizer)

    def made_by(self, made: Any) -> Source | None:
        """The line that made an optimizer, or a schedule of a learning rate."""
        return source(self._made_at(made)[0])

    def is_older(self, optimizer: Any) -> bool:
        """Whether an optimizer was made before any adapter that there is."""
        return self._adapters > 0 and self._made_at(optimizer)[1] == 0

    def _made_at(self, made: Any) -> tuple[Line | None, int | None]:
        while made is not None and made not in self._made:
            made = getattr(made, "optimizer", None)  # a wrapper around one, such as accelerate's
        return (None, None) if made is None else self._made[made]

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

    def _making(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def init(made: Any, *args: Any, **kwargs: Any) -> None:
            self._made[made] = line, _ = line_above(sys._getframe()), self._adapters
            self._optimizer = line if isinstance(made, Optimizer) else self._optimizer
            original(made, *args, **kwargs)

        return init

    def _injecting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def inject(*args: Any, **kwargs: Any) -> Any:
            self._adapted, self._adapters = line_above(sys._getframe()), self._adapters + 1
            return original(*args, **kwargs)

        return inject

    def _enabling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def enable(*args: Any, **kwargs: Any) -> Any:
            self._checkpointing = line_above(sys._getframe())
            return original(*args, **kwargs)

        return enable
