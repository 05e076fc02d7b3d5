"""Every module's attributes: its mode, hooks, registered children in their order, and what its forward keeps on itself."""

from __future__ import annotations

from collections import OrderedDict
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

_REGISTERING = frozenset({dict, OrderedDict, set})
_registries_of = itemgetter(*_REGISTRIES)


def kept_attributes(modules: Iterable[nn.Module]) -> Iterator[Restore]:
    """One restore for all of them: most have not changed, and to see that has to cost little."""
    modules = list(modules)
    kinds, before = list(map(type, modules)), _Contents(modules)

    def restore() -> None:
        for module, kind in zip(modules, kinds, strict=True):
            if type(module) is not kind:
                module.__class__ = kind
        if _Contents(modules) != before:
            before.put_back(modules)

    yield restore


def _registries(module: nn.Module) -> Iterable[Any]:
    """What a module registers. A scripted module keeps its own in C++, and what Python sees of it is no dict."""
    attributes = vars(module)
    try:
        found: tuple[Any, ...] = _registries_of(attributes)
    except KeyError:  # pickled by another version of torch
        found = tuple(attributes.get(name) for name in _REGISTRIES)
    return found


class _Contents:
    """The attributes of modules, and what their registries hold, laid out flat: a copy of each would be thousands of objects."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        containers: list[Any] = []
        for module in modules:
            containers.append(vars(module))
            containers += filter(None, _registries(module))  # most are empty
        if not _REGISTERING.issuperset(map(type, containers)):
            containers = [container for container in containers if isinstance(container, (dict, set))]
        self._containers = containers
        self._sizes = list(map(len, containers))
        self._names: list[Any] = []
        self._values: list[Any] = []
        for container in containers:
            self._names += container
            self._values += container.values() if isinstance(container, dict) else container

    def __eq__(self, other: object) -> bool:
        """Whether they hold the very same objects, under the same names in the same order."""
        return (
            isinstance(other, _Contents)
            and self._sizes == other._sizes
            and all(map(is_, self._containers, other._containers))
            and self._names == other._names
            and all(map(is_, self._values, other._values))
        )

    __hash__ = None  # type: ignore[assignment]

    def put_back(self, modules: Iterable[nn.Module]) -> None:
        """Refill what holds something else by now."""
        held: dict[int, dict[Any, Any]] = {}
        start = 0
        for container, size in zip(self._containers, self._sizes, strict=True):
            names, values = self._names[start : start + size], self._values[start : start + size]
            held[id(container)] = dict(zip(names, values, strict=True))
            start += size
        for module in modules:
            refill(vars(module), held[id(vars(module))])
            for registry in _registries(module):
                if isinstance(registry, (dict, set)):
                    refill(registry, held.get(id(registry), {}))


def refill(now: Any, before: Any) -> None:
    """Put the contents back, in their order, where they are not the very same objects."""
    if isinstance(now, set):
        if now != before:
            now.clear()
            now.update(before)
    elif len(now) != len(before) or list(now) != list(before) or not all(map(is_, now.values(), before.values())):
        now.clear()
        now.update(before)
