"""What tensors are put back to: values, memory, gradients, `requires_grad`, hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.internals import find, hooks_after_accumulation
from peft_inspect.run.reachable import Restore
from peft_inspect.run.registries import refill
from peft_inspect.run.weightless import is_weightless, storage_key

if TYPE_CHECKING:
    from torch import Tensor

_storage = torch.Tensor.untyped_storage  # as it is before a run replaces it
_base_of = find("base_of")
_SMALL = 1 << 24  # bytes; larger buffers (quantised weights, caches) are copied when an operation says that it writes


class WriteGuard:
    """Copies of the tensors that a run wrote into, made just before the first write; of small buffers at once."""

    def __init__(self, tensors: Iterable[Tensor], buffers: Iterable[Tensor]) -> None:
        buffers = list(buffers)
        self._aliases = [(tensor, tensor.detach()) for tensor in (*tensors, *buffers)]
        self._watched: dict[int, list[Tensor]] = {}
        for tensor, _ in self._aliases:
            self._watched.setdefault(storage_key(tensor), []).append(tensor)
        self._before: dict[int, list[tuple[Tensor, int, Tensor]]] = {}
        for buffer in buffers:
            if buffer.numel() * buffer.element_size() <= _SMALL:
                self.before_write(buffer)

    def before_write(self, tensor: Tensor) -> None:
        """Keep the values of what lives in the storage of `tensor`, which is about to be written."""
        key = storage_key(tensor)
        if key in self._watched and key not in self._before and not is_weightless(tensor) and not tensor.is_meta:
            self._before[key] = [(kept.detach(), _bytes(kept), kept.detach().clone()) for kept in self._watched[key]]

    def reading(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of tensors that gives their memory away: what is written there, no operation tells of."""

        @wraps(method)
        def give(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.before_write(tensor)
            return method(tensor, *args, **kwargs)

        return give

    def restore(self) -> None:
        """Put back replaced and resized storages, then overwritten values."""
        for tensor, alias in self._aliases:
            if storage_key(tensor) != storage_key(alias) or _layout(tensor) != _layout(alias):
                tensor.data = alias
        for copies in self._before.values():
            for alias, size, values in copies:
                if size > _bytes(alias):
                    _storage(alias).resize_(size)
                if not _same(alias, values):
                    alias.copy_(values)


def _bytes(tensor: Tensor) -> int:
    """The size of the storage; 0 for layouts that have none of their own."""
    return _storage(tensor).nbytes() if tensor.layout is torch.strided else 0


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.is_nested:  # has no shape; what lies in its storage is kept as of every other
        return (tensor.dtype,)
    return (tensor.dtype, tensor.shape, *((tensor.stride(), tensor.storage_offset()) if tensor.layout is torch.strided else ()))


def _same(left: Tensor, right: Tensor) -> bool:
    if left.layout is not torch.strided or left.is_nested:
        return False  # nothing compares these: they are put back in any case
    return torch.allclose(left, right, rtol=0, atol=0, equal_nan=True) if left.is_floating_point() else torch.equal(left, right)


def set_gradients_aside(leaves: Iterable[Tensor]) -> None:
    """So that a backward shows what arrives, and nothing acts on it that was there to train (an optimizer step in the backward)."""
    for leaf in leaves:
        leaf.grad = None
        if hooks := hooks_after_accumulation(leaf):
            hooks.clear()


def kept_leaves(leaves: Iterable[Tensor]) -> Iterator[Restore]:
    """Gradients, `requires_grad`, hooks, class and attributes of trainable tensors."""
    kept = [
        (leaf, type(leaf), leaf.requires_grad, leaf.grad, [(name, *_copied(getattr(leaf, name))) for name in _HOOKS], dict(vars(leaf)))
        for leaf in leaves
    ]

    def restore() -> None:
        for leaf, kind, requires_grad, gradient, hooks, attributes in kept:
            if type(leaf) is not kind:
                leaf.__class__ = kind
            if not leaf.is_leaf:
                leaf.detach_()
            leaf.requires_grad_(requires_grad)
            leaf.grad = gradient
            for name, registry, content in hooks:
                if getattr(leaf, name) is not registry:
                    setattr(leaf, name, registry)
                if registry is not None:
                    refill(registry, content)
            refill(vars(leaf), attributes)

    yield restore


_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def _copied(registry: Any) -> tuple[Any, Any]:
    return registry, None if registry is None else dict(registry)


def kept_outside_graphs(tensors: Iterable[Tensor]) -> Restore:
    """Writing what has a graph into a tensor outside it puts that tensor into the graph."""
    kept = list(tensors)

    def restore() -> None:
        for tensor in kept:
            if tensor.requires_grad and (_base_of is None or _base_of(tensor) is None):
                tensor.detach_().requires_grad_(False)

    return restore
