"""Who put adapter layers into another state while the model ran: disabled, merged, with another adapter active."""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from peft.tuners.tuners_utils import BaseTunerLayer

from peft_inspect.reversible import patched
from peft_inspect.run import patches
from peft_inspect.structure.source.lines import Line, nearest_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from peft_inspect.run.layers import State


class LayerStates:
    """The line that last called each of the methods that switch an adapter layer."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, str], Line | None] = {}

    def line(self, layer: Any, state: State) -> Line | None:
        """The line that put the layer into its state, if it was put there while the model ran."""
        switched = "merge" if state.enabled and state.merged else "set_adapter" if state.enabled else "enable_adapters"
        return self._lines.get((id(layer), switched))

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
            self._lines[id(layer), name] = nearest_line()
            return method(layer, *args, **kwargs)

        return switch
