"""What a forward can change besides registered tensors: what modules keep in plain attributes, and what that leads to.

A feature cache in a dict, a counter on a helper object, modules held in a list, a random number generator: none of them is
registered with the model, and all of them would make a second run differ from the first.
"""

from __future__ import annotations

import array
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import is_ as _is
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Literal

import torch
from torch import nn

from peft_inspect.structure.source.lines import is_installed
from peft_inspect.walk import modules_of

Role = Literal["leaf", "tensor", "module", "container", "object", "values", "generator"]
Restore = Callable[[], None]

_HOLDING = frozenset({"module", "container", "object", "values", "generator"})
_STANDARD = frozenset(vars(nn.Module()))  # every module has these; they are restored with the module itself
_CODE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType)
_LARGEST_COPY = 1 << 28  # bytes
_LEAVES: tuple[type, ...] = (str, bytes, int, float, bool, complex, type(None), type, torch.dtype, torch.device, *_CODE)


@dataclass
class Reachable:
    """A model's modules, and what their attributes lead to, each once."""

    modules: list[nn.Module]
    containers: list[Any] = field(default_factory=list)  # dicts, lists, sets, tuples, deques, and the user's own objects
    values: list[Any] = field(default_factory=list)  # NumPy arrays, arrays, bytearrays
    generators: list[Any] = field(default_factory=list)
    tensors: list[torch.Tensor] = field(default_factory=list)  # that no module registers; those of unusual layouts are left alone


def reachable(model: nn.Module) -> Reachable:
    """Every module of the model and every one its attributes lead to, and what lies on the way."""
    found = Reachable(modules_of(model))
    known = {id(module) for module in found.modules}
    pending = [value for module in found.modules for value in _attributes(module)]
    while pending:
        value = pending.pop()
        if id(value) in known:
            continue
        known.add(id(value))
        role = _ROLE_OF[type(value)]
        if role == "module":
            found.modules.append(value)
            pending.extend((*value._modules.values(), *_attributes(value)))
        elif role == "tensor":
            if value.layout is torch.strided and not value.is_nested:
                found.tensors.append(value)
        elif role == "values":
            found.values.append(value)
        elif role == "generator":
            found.generators.append(value)
        else:
            found.containers.append(value)
            pending.extend(item for item in _items(value) if _ROLE_OF[type(item)] != "leaf")
    return found


def _attributes(module: nn.Module) -> Iterable[Any]:
    attributes = vars(module)
    own = map(attributes.__getitem__, attributes.keys() - _STANDARD)
    return [value for value in own if _ROLE_OF[type(value)] != "leaf"]


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (list, set, tuple, deque)) else _fields(value).values()


def _fields(value: Any) -> dict[str, Any]:
    """What an object of the user's holds, by name, in `__slots__` as well."""
    slots = _SLOTS_OF[type(value)]
    own = getattr(value, "__dict__", {})
    return {**own, **{name: getattr(value, name) for name in slots if hasattr(value, name)}} if slots else own


class _Roles(dict[type, Role]):
    """How values of a class are treated, decided once for each: this is asked for every attribute of every module."""

    def __missing__(self, kind: type) -> Role:
        role = self[kind] = _decide(kind)
        return role


class _Slots(dict[type, tuple[str, ...]]):
    """The names that the classes of an object declare in `__slots__`."""

    def __missing__(self, kind: type) -> tuple[str, ...]:
        declared = [
            name for owner in kind.__mro__ for name, member in vars(owner).items() if type(member) is _MEMBER and not is_installed(owner)
        ]
        names = self[kind] = tuple(declared)
        return names


class _Slotted:
    __slots__ = ("one",)


_MEMBER = type(vars(_Slotted)["one"])
_ROLE_OF = _Roles()
_SLOTS_OF = _Slots()


def _decide(kind: type) -> Role:
    """Only containers, buffers of numbers, generators and the user's own objects have contents that a forward may set."""
    if issubclass(kind, nn.Module):
        return "module"
    if issubclass(kind, torch.Tensor):
        return "tensor"
    if issubclass(kind, _LEAVES):
        return "leaf"
    if issubclass(kind, (dict, list, set, tuple, deque)):
        return "container"
    if issubclass(kind, (bytearray, array.array)) or _is_numpy(kind, "ndarray"):
        return "values"
    if _generator_state(kind) is not None:
        return "generator"
    holds = (hasattr(kind, "__dict__") and kind.__dictoffset__) or _SLOTS_OF[kind]
    return "object" if holds and not is_installed(kind) else "leaf"


def _is_numpy(kind: type, name: str) -> bool:
    """Whether a class is this one of NumPy, which nothing here imports."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, getattr(numpy, name))


def _generator_state(kind: type) -> tuple[Callable[[Any], Any], Callable[[Any, Any], None]] | None:
    """How the state of a random number generator of the user's own is read and set; None for what is none."""
    if issubclass(kind, torch.Generator):
        return torch.Generator.get_state, lambda generator, state: generator.set_state(state)
    if issubclass(kind, random.Random) and not issubclass(kind, random.SystemRandom):
        return random.Random.getstate, random.Random.setstate
    numpy = sys.modules.get("numpy.random")
    if numpy is not None and issubclass(kind, numpy.RandomState):
        return numpy.RandomState.get_state, numpy.RandomState.set_state
    if numpy is not None and issubclass(kind, numpy.Generator):
        return lambda generator: generator.bit_generator.state, lambda generator, state: setattr(generator.bit_generator, "state", state)
    if numpy is not None and issubclass(kind, numpy.BitGenerator):
        return lambda generator: generator.state, lambda generator, state: setattr(generator, "state", state)
    return None


def kept_contents(found: Reachable) -> Iterator[Restore]:
    """Copies of what containers, arrays and generators hold; each restore puts one back, where it changed."""
    for value in found.containers:
        if not isinstance(value, tuple):
            yield kept_container(value)
    for value in found.values:
        if not _is_out_of_reach(value):
            yield _kept_values(value)
    for generator in found.generators:
        read, write = _generator_state(type(generator)) or (None, None)
        if read is not None and write is not None:
            yield _kept_state(generator, read(generator), write)


def _kept_state(generator: Any, state: Any, write: Callable[[Any, Any], None]) -> Restore:
    return lambda: write(generator, state)


def _is_out_of_reach(value: Any) -> bool:
    """Arrays that nobody can write, that lie in a file, or that are too large for a copy of each run."""
    return _is_numpy(type(value), "ndarray") and (not value.flags.writeable or hasattr(value, "filename") or value.nbytes > _LARGEST_COPY)


def _kept_values(value: Any) -> Restore:
    before = value.copy() if hasattr(value, "copy") else value[:]

    def restore() -> None:
        if isinstance(value, (bytearray, array.array)):
            value[:] = before
        elif value.shape == before.shape:
            value[...] = before

    return restore


def kept_container(value: Any) -> Restore:
    """A shallow copy of what a container or an object holds; the restore puts it in again where it has changed."""
    before, kind = _contents(value), type(value)

    def restore() -> None:
        if type(value) is not kind:
            value.__class__ = kind
        if not _same_objects(_contents(value), before):  # some containers refuse every write, and need none
            _refill(value, before)

    return restore


def _refill(value: Any, contents: Any) -> None:
    if isinstance(value, list):
        value[:] = contents
    elif isinstance(value, deque):
        value.clear()
        value.extend(contents)
    elif isinstance(value, (dict, set)):
        value.clear()
        value.update(contents)
    else:
        slots = _SLOTS_OF[type(value)]
        own = getattr(value, "__dict__", {})
        own.clear()
        own.update({name: item for name, item in contents.items() if name not in slots})
        for name in slots:
            if name in contents:
                object.__setattr__(value, name, contents[name])
            elif hasattr(value, name):
                object.__delattr__(value, name)


def _same_objects(now: Any, before: Any) -> bool:
    """Whether the contents are the very same objects still, in the same order."""
    if isinstance(before, dict):
        return list(now) == list(before) and all(map(_is, now.values(), before.values()))
    return len(now) == len(before) and all(map(_is, now, before))


def _contents(value: Any) -> Any:
    if isinstance(value, (dict, list, set, deque)):
        return value.copy()
    return dict(_fields(value))
