"""Who put adapter layers into another state, before the step or in it: disabled, merged, with another adapter active."""

from __future__ import annotations

import itertools
import sys
from functools import partial, wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from peft.tuners.tuners_utils import BaseTunerLayer

from peft_inspect.reversible import patched
from peft_inspect.run import patches
from peft_inspect.structure.source.lines import Line, is_peft, nearest_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

    from peft_inspect.run.layers import State

_UNASKED = frozenset({"inject_adapter", "add_adapter", "load_adapter", "enable_adapters"})  # activate an adapter without being told which


class LayerStates:
    """The line that last called each of the methods that switch an adapter layer."""

    def __init__(self) -> None:
        self._lines: WeakKeyDictionary[Any, dict[str, tuple[int, Line | None]]] = WeakKeyDictionary()
        self._count = itertools.count()
        self._began = 0

    def step_begins(self) -> None:
        """What is switched from now on is switched by the step."""
        self._began = next(self._count)

    def line(self, layer: Any, state: State) -> Line | None:
        """The line that put the layer into its state, if it was put there while somebody watched."""
        return self._last(layer, state)[1]

    def in_step(self, layer: Any, state: State) -> bool:
        """Whether the step itself put it into its state."""
        return self._last(layer, state)[0] >= self._began

    def _last(self, layer: Any, state: State) -> tuple[int, Line | None]:
        switched = "merge" if state.enabled and state.merged else "set_adapter" if state.enabled else "enable_adapters"
        return self._lines.get(layer, {}).get(switched, (-1, None))

    def watching(self, layers: Iterable[Any]) -> AbstractContextManager[None]:
        """Watch these methods in every class of `layers`; tuners have their own."""
        return patched(*((owner, name, partial(self._noting, name)) for owner, name in patches.layer_switches(layers)))

    def everywhere(self) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
        """What watches these methods in every class of adapter layers that there is, for `patched`."""
        kinds: list[type] = [BaseTunerLayer]
        for kind in kinds:  # grows while it is walked
            kinds += list[type](type.__subclasses__(kind))
        places = ((kind, name) for kind in dict.fromkeys(kinds) for name in patches.LAYER_SWITCHES if name in vars(kind))
        return ((owner, name, partial(self._noting, name)) for owner, name in places)

    def _noting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def switch(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if name != "set_adapter" or not _is_unasked(sys._getframe(1)):
                self._lines.setdefault(layer, {})[name] = next(self._count), nearest_line()
            return method(layer, *args, **kwargs)

        return switch


def _is_unasked(frame: FrameType | None) -> bool:
    """Whether PEFT activates an adapter because it adds it, or enables what was active before."""
    while frame is not None and is_peft(frame.f_code):
        if frame.f_code.co_name in _UNASKED:
            return True
        frame = frame.f_back
    return False
