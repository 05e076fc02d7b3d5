"""Every module's attributes: its mode, hooks, registered children in their order, and what its forward keeps on itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import is_
from typing import TYPE_CHECKING, Any

from peft_inspect.run.reachable import Restore

if TYPE_CHECKING:
    from torch import nn

_REGISTRIES = (
    *("_parameters", "_buffers", "_modules", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks"),
    *("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called", "_non_persistent_buffers_set"),
    *("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)

_NOTHING: dict[str, Any] = {}


def kept_attributes(modules: Iterable[nn.Module]) -> Iterator[Restore]:
    """One restore for all of them: most have not changed, and to see that has to cost little."""
    kept = [(module, type(module), dict(vars(module)), _registries(module)) for module in modules]

    def restore() -> None:
        for module, kind, attributes, registries in kept:
            if type(module) is not kind:
                module.__class__ = kind
            refill(vars(module), attributes)
            for registry, content in registries:
                if registry or content:
                    refill(registry, content)

    yield restore


def _registries(module: nn.Module) -> list[tuple[Any, Any]]:
    """What a module registers, with a copy. A scripted module keeps its own in C++, and what Python sees of it is no dict."""
    attributes = vars(module)
    found = [registry for name in _REGISTRIES if isinstance(registry := attributes.get(name), (dict, set))]
    return [(registry, registry.copy() if registry else _NOTHING) for registry in found]


def refill(now: Any, before: Any) -> None:
    """Put the contents back, in their order, where they are not the very same objects."""
    if isinstance(now, set):
        if now != before:
            now.clear()
            now.update(before)
    elif len(now) != len(before) or list(now) != list(before) or not all(map(is_, now.values(), before.values())):
        now.clear()
        now.update(before)
