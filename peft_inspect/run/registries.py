"""Every module's attributes: its mode, hooks, registered children in their order, and what its forward keeps on itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any

from peft_inspect.run.reachable import Restore

if TYPE_CHECKING:
    from torch import nn

_REGISTRIES = (
    *("_parameters", "_buffers", "_modules", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks"),
    *("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called", "_non_persistent_buffers_set"),
    *("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)

_registries_of = itemgetter(*_REGISTRIES)


def kept_attributes(modules: Iterable[nn.Module]) -> Iterator[Restore]:
    """One restore for all of them: most have not changed, and to see that has to cost little."""
    modules = list(modules)
    kinds = list(map(type, modules))
    containers = [container for module in modules for container in _containers(module)]
    before = _Contents(containers)

    def restore() -> None:
        for module, kind in zip(modules, kinds, strict=True):
            if type(module) is not kind:
                module.__class__ = kind
        if not before.still_holds():
            before.put_back()

    yield restore


def _containers(module: nn.Module) -> Iterable[Any]:
    """Its attributes, and what it registers. A scripted module keeps its own in C++, and what Python sees of it is no dict."""
    attributes = vars(module)
    try:
        found = _registries_of(attributes)
    except KeyError:  # pickled by another version of torch
        found = tuple(attributes.get(name) for name in _REGISTRIES)
    return attributes, *(registry for registry in found if isinstance(registry, (dict, set)))


class _Contents:
    """What dicts and sets hold, laid out flat: a copy of each would be thousands of objects."""

    def __init__(self, containers: list[Any]) -> None:
        self._containers = containers
        self._sizes, self._names, self._values = self._flat()

    def _flat(self) -> tuple[list[int], list[Any], list[Any]]:
        names: list[Any] = []
        values: list[Any] = []
        for container in filter(None, self._containers):
            names += container
            values += container.values() if isinstance(container, dict) else container
        return list(map(len, self._containers)), names, values

    def still_holds(self) -> bool:
        """Whether they hold the very same objects, under the same names in the same order."""
        sizes, names, values = self._flat()
        return sizes == self._sizes and names == self._names and all(map(is_, values, self._values))

    def put_back(self) -> None:
        """Refill those that do not."""
        start = 0
        for container, size in zip(self._containers, self._sizes, strict=True):
            names, values = self._names[start : start + size], self._values[start : start + size]
            start += size
            refill(container, dict(zip(names, values, strict=True)))


def refill(now: Any, before: Any) -> None:
    """Put the contents back, in their order, where they are not the very same objects."""
    if isinstance(now, set):
        if now != before:
            now.clear()
            now.update(before)
    elif len(now) != len(before) or list(now) != list(before) or not all(map(is_, now.values(), before.values())):
        now.clear()
        now.update(before)
