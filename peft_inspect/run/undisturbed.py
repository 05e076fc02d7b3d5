"""The promise of the tool: what it inspects is afterwards bit for bit what it was, whatever happened in between.

Nothing is copied that does not change. Parameters and tensors in plain attributes are aliased, and an operation
that is about to write into one makes the copy first (`WriteGuard.before_write`, called by the dispatch mode of every run).
Buffers are copied up front: batch norm writes its statistics through an operation that does not say so.
"""

from __future__ import annotations

import random
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.run.reachable import plain_tensors, reachable, remembered
from peft_inspect.run.weightless import is_weightless, storage_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor, nn

_NOTHING: dict[str, Any] = {}
_REGISTRIES = ("_parameters", "_buffers", "_modules", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks")


class WriteGuard:
    """Copies of the parameters and other tensors that a run wrote into, made just before the first write."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._aliases = [(parameter, parameter.detach()) for parameter in parameters]
        self._watched: dict[int, list[Tensor]] = {}
        for parameter, _ in self._aliases:
            self._watched.setdefault(storage_key(parameter), []).append(parameter)
        self._before: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def before_write(self, tensor: Tensor) -> None:
        """Keep the values of what lives in the storage of `tensor`, which is about to be written."""
        key = storage_key(tensor)
        if key in self._watched and key not in self._before and not is_weightless(tensor):
            self._before[key] = [(parameter.detach(), parameter.detach().clone()) for parameter in self._watched[key]]

    def restore(self) -> None:
        """Put back replaced storages, then overwritten values."""
        for parameter, alias in self._aliases:
            if storage_key(parameter) != storage_key(alias) or parameter.shape != alias.shape:
                parameter.data = alias
        for copies in self._before.values():
            for alias, values in copies:
                alias.copy_(values)
        self._before.clear()


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[WriteGuard]:
    """Run anything with `model` inside; afterwards, also after an exception or Ctrl-C, it is as it was found.

    Restored are: parameters, gradients, `requires_grad`, buffers, modes, hooks and every other attribute of
    each module, with the containers and objects they hold, the random number generators of torch, NumPy and Python, grad mode, autocast and
    the default dtype. Gradients are None inside, so that a backward shows what arrives.
    """
    modules, containers = reachable(model)
    parameters = _unique(parameter for module in modules for parameter in module._parameters.values())
    buffers = _unique(buffer for module in modules for buffer in module._buffers.values())
    plain = _unique(plain_tensors(modules, containers))
    guard = WriteGuard([*parameters, *plain])
    grad_enabled = torch.is_grad_enabled()
    with ExitStack() as stack:
        stack.callback(torch.set_grad_enabled, grad_enabled)
        for restore in (
            _process_state(),
            remembered(containers),
            _attributes(modules),
            _buffers(buffers),
            guard.restore,
            _gradients([*parameters, *(tensor for tensor in (*buffers, *plain) if tensor.requires_grad and tensor.is_leaf)]),
            _graphs(tensor for tensor in (*buffers, *plain) if not tensor.requires_grad),
        ):
            stack.callback(torch.no_grad()(restore))
        yield guard


def _unique(tensors: Iterable[Tensor | None]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors if tensor is not None}.values())


def _gradients(parameters: Iterable[Tensor]) -> Callable[[], None]:
    """Set gradients aside, with the hooks that would act on fresh ones (an optimizer step in the backward)."""
    kept = [
        (parameter, parameter.grad, parameter.requires_grad, dict(parameter._post_accumulate_grad_hooks or {})) for parameter in parameters
    ]
    for parameter, *_ in kept:
        parameter.grad = None
        if parameter._post_accumulate_grad_hooks:
            parameter._post_accumulate_grad_hooks.clear()

    def restore() -> None:
        for parameter, gradient, requires_grad, hooks in kept:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
            if hooks:
                parameter._post_accumulate_grad_hooks.update(hooks)

    return restore


def _graphs(tensors: Iterable[Tensor]) -> Callable[[], None]:
    """Writing what has a graph into a tensor outside it puts that tensor into the graph."""
    kept = list(tensors)

    def restore() -> None:
        for tensor in kept:
            if tensor.requires_grad and not tensor._is_view():
                tensor.detach_().requires_grad_(False)

    return restore


def _buffers(buffers: Iterable[Tensor]) -> Callable[[], None]:
    kept = [(buffer, buffer.detach(), None if is_weightless(buffer) or buffer.is_meta else buffer.detach().clone()) for buffer in buffers]

    def restore() -> None:
        for buffer, alias, values in kept:
            if storage_key(buffer) != storage_key(alias):
                buffer.data = alias
            if values is not None and not _same(alias, values):
                alias.copy_(values)

    return restore


def _same(left: Tensor, right: Tensor) -> bool:
    if left.layout is not torch.strided:
        return False  # nothing compares sparse tensors: they are put back in any case
    return torch.allclose(left, right, rtol=0, atol=0, equal_nan=True) if left.is_floating_point() else torch.equal(left, right)


def _attributes(modules: Iterable[nn.Module]) -> Callable[[], None]:
    """Every module's attributes: its mode, hooks, registered children, and what its forward keeps on itself."""
    kept = [
        (module, dict(vars(module)), [(registry, dict(registry) if registry else _NOTHING) for registry in _registries(module)])
        for module in modules
    ]

    def restore() -> None:
        for module, attributes, registries in kept:
            vars(module).clear()
            vars(module).update(attributes)
            for registry, content in registries:
                if not registry and not content:
                    continue
                if registry.keys() != content.keys() or any(registry[key] is not item for key, item in content.items()):
                    registry.clear()
                    registry.update(content)

    return restore


def _registries(module: nn.Module) -> list[dict[str, Any]]:
    """What a module registers. A scripted module keeps its own in C++, and what Python sees of it is no dict."""
    attributes = vars(module)
    return [registry for name in _REGISTRIES if isinstance(registry := attributes.get(name), dict)]


def _process_state() -> Callable[[], None]:
    """What belongs to the process or the thread, not to the model."""
    numpy = _numpy_random()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": numpy.get_state() if numpy else None,
        "dtype": torch.get_default_dtype(),
        "autocast": {device: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")},
    }

    def restore() -> None:
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state_all(state["cuda"])
        random.setstate(state["python"])
        if numpy:
            numpy.set_state(state["numpy"])
        torch.set_default_dtype(state["dtype"])
        for device, (enabled, dtype) in state["autocast"].items():
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)

    return restore


def _numpy_random() -> Any:
    try:
        import numpy as np
    except ImportError:
        return None
    return np.random
