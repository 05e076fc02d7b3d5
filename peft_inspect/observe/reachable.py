"""What a forward can change besides tensors: containers and objects that modules keep in plain attributes.

A feature cache in a dict, a counter on a helper object, modules held in a list: none of them is registered with
the model, and all of them would make a second run differ from the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from peft_inspect.observe.sources import is_installed

_REGISTRIES = frozenset({"_parameters", "_buffers", "_modules"})  # restored with the module itself
_LEAVES = (str, bytes, int, float, bool, complex, type(None), type, torch.Tensor, torch.dtype, torch.device)
_LEAVES += (FunctionType, BuiltinFunctionType, MethodType, ModuleType)


def reachable(model: nn.Module) -> tuple[list[nn.Module], list[Any]]:
    """Every module of the model and every one its attributes lead to, and the containers and objects on the way."""
    modules = list(model.modules())
    known = {id(module) for module in modules}
    containers: dict[int, Any] = {}
    pending = [value for module in modules for value in _attributes(module)]
    while pending:
        value = pending.pop()
        if id(value) in containers or id(value) in known:
            continue
        if isinstance(value, nn.Module):
            known.add(id(value))
            modules.append(value)
            pending.extend((*value._modules.values(), *_attributes(value)))
        elif isinstance(value, (dict, list, set, tuple)) or _is_users(type(value)):
            containers[id(value)] = value
            pending.extend(_inside(value))
    return modules, [value for value in containers.values() if not isinstance(value, tuple)]


def _attributes(module: nn.Module) -> Iterable[Any]:
    return [value for name, value in vars(module).items() if name not in _REGISTRIES and not isinstance(value, _LEAVES) and value]


def _inside(value: Any) -> Iterable[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, set, tuple)) else vars(value).values()
    return [item for item in items if not isinstance(item, _LEAVES)]


@cache
def _is_users(kind: type) -> bool:
    """Whether instances of this class are the user's own objects, whose attributes a forward may set."""
    return hasattr(kind, "__dict__") and kind.__module__ != "builtins" and not is_installed(kind)


def remembered(containers: Iterable[Any]) -> Callable[[], None]:
    """Shallow copies of the contents; what comes back puts them in again."""
    kept = [(value, _contents(value)) for value in containers]

    def restore() -> None:
        for value, contents in kept:
            if isinstance(value, list):
                value[:] = contents
            else:
                target = value if isinstance(value, (dict, set)) else vars(value)
                target.clear()
                target.update(contents)

    return restore


def _contents(value: Any) -> Any:
    if isinstance(value, (dict, list, set)):
        return value.copy()
    return dict(vars(value))
