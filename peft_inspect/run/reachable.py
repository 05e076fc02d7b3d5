"""What a forward can change besides tensors: containers and objects that modules keep in plain attributes.

A feature cache in a dict, a counter on a helper object, modules held in a list: none of them is registered with
the model, and all of them would make a second run differ from the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Literal

import torch
from torch import nn

from peft_inspect.structure.source.lines import is_installed

Role = Literal["leaf", "tensor", "module", "container", "object"]

_HOLDING = frozenset({"module", "container", "object"})
_STANDARD = frozenset(vars(nn.Module()))  # every module has these; they are restored with the module itself
_CODE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType)
_LEAVES: tuple[type, ...] = (str, bytes, int, float, bool, complex, type(None), type, torch.dtype, torch.device, *_CODE)


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
        if _ROLE_OF[type(value)] == "module":
            known.add(id(value))
            modules.append(value)
            pending.extend((*value._modules.values(), *_attributes(value)))
        else:
            containers[id(value)] = value
            pending.extend(_inside(value))
    return modules, [value for value in containers.values() if not isinstance(value, tuple)]


def plain_tensors(modules: Iterable[nn.Module], containers: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among their attributes and items, which no module registers; those of unusual layouts are left alone."""
    values = [value for module in modules for value in vars(module).values()]
    values += [item for container in containers for item in _items(container)]
    tensors = [value for value in values if _ROLE_OF[type(value)] == "tensor"]
    return [value for value in tensors if value.layout is torch.strided and not value.is_nested]


def _attributes(module: nn.Module) -> Iterable[Any]:
    return [value for name, value in vars(module).items() if name not in _STANDARD and _ROLE_OF[type(value)] in _HOLDING]


def _inside(value: Any) -> Iterable[Any]:
    return [item for item in _items(value) if _ROLE_OF[type(item)] in _HOLDING]


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, (list, set, tuple)) else vars(value).values()


class _Roles(dict[type, Role]):
    """How values of a class are treated, decided once for each: this is asked for every attribute of every module."""

    def __missing__(self, kind: type) -> Role:
        role = self[kind] = _decide(kind)
        return role


_ROLE_OF = _Roles()


def _decide(kind: type) -> Role:
    """Only containers and the user's own objects have contents that a forward may set."""
    if issubclass(kind, nn.Module):
        return "module"
    if issubclass(kind, torch.Tensor):
        return "tensor"
    if issubclass(kind, _LEAVES):
        return "leaf"
    if issubclass(kind, (dict, list, set, tuple)):
        return "container"
    return "object" if hasattr(kind, "__dict__") and kind.__dictoffset__ and not is_installed(kind) else "leaf"


def remembered(containers: Iterable[Any]) -> Callable[[], None]:
    """Shallow copies of the contents; what comes back puts them in again."""
    kept = [(value, _contents(value)) for value in containers]

    def restore() -> None:
        for value, contents in kept:
            if _holds(value, contents):  # some containers refuse every write, and need none
                continue
            if isinstance(value, list):
                value[:] = contents
            else:
                target = value if isinstance(value, (dict, set)) else vars(value)
                target.clear()
                target.update(contents)

    return restore


def _holds(value: Any, contents: Any) -> bool:
    """Whether the contents are the very same objects still, in the same order."""
    now = _contents(value)
    if isinstance(contents, dict):
        return list(now) == list(contents) and all(now[key] is contents[key] for key in contents)
    return len(now) == len(contents) and all(one is other for one, other in zip(now, contents, strict=True))


def _contents(value: Any) -> Any:
    if isinstance(value, (dict, list, set)):
        return value.copy()
    return dict(vars(value))
