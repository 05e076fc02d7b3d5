"""Which weights of a model an optimizer trains, where it holds shards or copies of them as well."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peft_inspect.walk import defined_in

if TYPE_CHECKING:
    from torch import Tensor

# Where optimizers with flat or float32 copies of their own keep the model's weights: DeepSpeed's ZeRO-1 and 2, its bf16
# optimizer, its fp16 optimizers and ZeRO-3.
_GROUPS = ("bit16_groups", "bf16_groups", "fp16_groups", "float16_groups")
_INNER = ("optimizer", "base_optimizer", "_optimizer")  # accelerate, Lightning, schedulers and look-ahead wrappers


def held_by(optimizer: Any) -> tuple[Tensor, ...]:
    """The tensors an optimizer was given, its own or those of the optimizer that it is put around."""
    found: dict[int, Tensor] = {}
    pending, known = [optimizer], set()
    while pending:
        holder = pending.pop()
        if holder is None or id(holder) in known:
            continue
        known.add(id(holder))
        for groups in (getattr(holder, name, None) for name in (*_GROUPS, "param_groups")):
            found.update((id(tensor), tensor) for tensor in _tensors(groups))
        pending += [getattr(holder, name, None) for name in _INNER]
    return tuple(found.values())


def unknown_holder(optimizer: Any, parameters: Iterable[Tensor]) -> str | None:
    """Why it cannot be told what an optimizer trains; None where it can.

    An optimizer of a runtime, none of whose tensors is a weight of the model, holds shards or copies. One of torch's own trains
    what it holds.
    """
    own = {id(parameter) for parameter in parameters}
    held = held_by(optimizer)
    if any(id(tensor) in own for tensor in held) or not held or defined_in(type(optimizer)).startswith("torch.optim"):
        return None
    name = f"{defined_in(type(optimizer)).partition('.')[0]}'s {type(optimizer).__name__}"
    return f"the optimizer, {name}, holds {len(held)} tensors of its own, and which weights they stand for is not known"


def held_as_copies(optimizers: Iterable[Any], weights: Iterable[Tensor]) -> str | None:
    """Why it cannot be told what trains these weights, where optimizers hold copies of them, in the memory of the host for one.

    Copies have the shapes of the weights and are parameters of no module.
    """
    held = {id(tensor): tensor for optimizer in optimizers for tensor in held_by(optimizer)}
    modules = (other for other in gc.get_objects() if issubclass(type(other), nn.Module))
    registered = {id(parameter) for module in modules for parameter in module.__dict__.get("_parameters", {}).values()}
    shapes = Counter(tuple(tensor.shape) for number, tensor in held.items() if number not in registered)
    if not shapes or Counter(tuple(weight.shape) for weight in weights) - shapes:
        return None
    held_here = f"the optimizers hold {sum(shapes.values())} tensors of no module, with the shapes of these weights"
    return f"{held_here}, and what is done with them is not known"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(value.get("params"))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
