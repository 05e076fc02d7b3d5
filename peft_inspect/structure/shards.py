"""Weights of which this process holds a part: the part that lies here, and the shape of the whole.

A part without elements means that the weight lies elsewhere, not that there is none. Nothing here talks to another process.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

K = TypeVar("K")


def local(tensor: Tensor) -> Tensor:
    """The part of a weight or of a gradient that lies in this process; of a whole one, itself. Outside the autograd graph."""
    if (part := getattr(tensor, "ds_tensor", None)) is not None:  # ZeRO-3 keeps the part beside a parameter that it has emptied
        kept: Tensor = part.detach()
        return kept
    kind = _distributed_tensor()
    if kind is not None and isinstance(tensor, kind):
        with torch.no_grad():
            return kind.to_local(tensor)  # type: ignore[no-any-return]
    return tensor.detach()


def numbers(scalars: Mapping[K, Tensor]) -> dict[K, float]:
    """The values of scalar tensors, with one wait per device and dtype instead of one per tensor."""
    groups: dict[tuple[torch.device, torch.dtype], list[K]] = defaultdict(list)
    for key, scalar in scalars.items():
        groups[scalar.device, scalar.dtype].append(key)
    values: dict[K, float] = {}
    for keys in groups.values():
        values |= zip(keys, torch.stack([scalars[key] for key in keys]).tolist(), strict=True)
    return values


def whole_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a weight over all processes."""
    shapes: Any = getattr(tensor, "_shapes", ()) if getattr(tensor, "_is_flat_param", False) else ()
    return tuple(shapes[0]) if len(shapes) == 1 else tuple(getattr(tensor, "ds_shape", tensor.shape))


def flattened(wrapper: nn.Module) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """The weights that FSDP has laid into the flat parameter of this wrapper and still shows one by one, with their shapes as a whole."""
    flat = getattr(vars(wrapper).get("_handle"), "flat_param", None)
    yield from zip(getattr(flat, "_params", None) or (), map(tuple, getattr(flat, "_shapes", ())), strict=False)


def own_name(tensor: Tensor, name: str) -> str:
    """What a parameter that is registered as `name` is called by its module: a flat parameter of one weight is that weight."""
    names: Any = getattr(tensor, "_fqns", ()) if getattr(tensor, "_is_flat_param", False) else ()
    return str(names[0]) if len(names) == 1 else name


def is_part(tensor: Tensor) -> bool:
    """Whether a runtime may keep other parts of this tensor in other processes."""
    kind = _distributed_tensor()
    return hasattr(tensor, "ds_id") or (kind is not None and isinstance(tensor, kind)) or bool(getattr(tensor, "_is_flat_param", False))


def _distributed_tensor() -> Any:
    """The class `DTensor`; None where nothing has imported it."""
    module = sys.modules.get("torch.distributed.tensor")
    return None if module is None else _class(module)


@cache
def _class(module: Any) -> Any:
    return getattr(module, "DTensor", None)
