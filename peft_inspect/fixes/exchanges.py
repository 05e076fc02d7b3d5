"""Fixes that exchange something at the moment when it is used: a weight, the module that is called, what a detach returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from peft_inspect.fixes.candidate import Candidate
from peft_inspect.internals import OpOverload
from peft_inspect.reversible import hooked, patched
from peft_inspect.run import patches
from peft_inspect.run.weightless import storage_key
from peft_inspect.structure.adapter_layers import prompted
from peft_inspect.structure.source.lines import nearest_line, source
from peft_inspect.structure.wrappers import inside
from peft_inspect.trace.copies import copied_from
from peft_inspect.trace.flow import DETACHING, function_name
from peft_inspect.trace.stand_ins import block_of


class Exchange:
    """Whether anything came by to be exchanged; what runs inside a captured graph never does."""

    acted = False

    def in_thread(self) -> Callable[[], AbstractContextManager[object]]:
        """What acts in a thread that work is handed to: global hooks do in any case, modes of functions where they are entered."""
        return lambda: self if isinstance(self, TorchFunctionMode) else nullcontext()


_TRANSPOSED = frozenset({"T", "mT", "H", "mH"})  # properties that give the weight itself; others look at its metadata


def _is_below_autograd(func: Callable[..., Any]) -> bool:
    """Whether the dispatch mode performs an operation of a captured graph: exchanging its operands there connects nothing."""
    return isinstance(func, OpOverload)


def _trained(wrapper: Any) -> nn.Module:
    """The copy that trains in the place of a module in `modules_to_save`."""
    copy: nn.Module = wrapper.modules_to_save[wrapper.active_adapters[0]]
    return copy


def _adapted_weight(layer: Any) -> torch.Tensor | None:
    """What the layer adds its delta to: the weight of its base layer, or the parameter that `target_parameters` names."""
    weight = getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight"), None)
    return weight if isinstance(weight, torch.Tensor) else None


class _Substitute(Exchange, TorchFunctionMode):
    """Gives operations outside an adapter layer the weight with the adapter applied, in place of the base weight.

    In place of the weights of a module in `modules_to_save` it gives those of the trained copy.
    """

    def __init__(self, candidate: Candidate) -> None:
        super().__init__()
        layers = [layer for layer in candidate.layers if hasattr(layer, "get_delta_weight")]
        self._layer_of = {storage_key(weight): (layer, weight.shape) for layer in layers if (weight := _adapted_weight(layer)) is not None}
        self._copy_of = {
            storage_key(original): copy
            for wrapper in candidate.wrappers
            for original, copy in zip(wrapper.original_module.parameters(), _trained(wrapper).parameters(), strict=True)
        }
        self._running: list[nn.Module] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if _is_below_autograd(func):
            return func(*args, **(kwargs or {}))
        name = function_name(func)
        if name in DETACHING:
            weight = self._with_adapter(args[0])
            return weight if weight is not args[0] else func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "__get__" and name not in _TRANSPOSED:
            return func(*args, **(kwargs or {}))
        return func(*self._with_adapter(args), **{name: self._with_adapter(value) for name, value in (kwargs or {}).items()})

    def _with_adapter(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(self._with_adapter(item) for item in value) if type(value) in (list, tuple) else value
        if not isinstance(value, torch.Tensor) or value.requires_grad:
            return value
        copy = self._copy_of.get(storage_key(value))
        if copy is not None and copy.shape == value.shape:
            self.acted = True
            return copy
        layer, shape = self._layer_of.get(storage_key(value), (None, None))
        if layer is None or layer in self._running or value.shape != shape:
            return value
        self.acted = True
        return value + sum(layer.get_delta_weight(name).to(value.dtype) for name in layer.active_adapters if name in layer.scaling)

    def _leave(self, module: nn.Module, _args: Any, _output: Any) -> None:
        while self._running and self._running.pop() is not module:
            pass

    def _applied(self, apply: Any) -> Any:
        """What custom autograd functions are called through: torch shows their operands to no mode."""

        def with_adapter(cls: type, *args: Any, **kwargs: Any) -> Any:
            return apply.__get__(None, cls)(*self._with_adapter(args), **kwargs)  # written in C from torch 2.14 on

        return classmethod(with_adapter)

    @contextmanager
    def running(self) -> Iterator[Exchange]:
        """Adapter layers that run apply their adapter themselves."""
        hooks = (
            partial(register_module_forward_pre_hook, lambda module, _args: self._running.append(module)),
            partial(register_module_forward_hook, self._leave, always_call=True),
        )
        with patched((*patches.FUNCTION_APPLY, self._applied)), hooked(*hooks), self:
            yield self


@contextmanager
def through_adapter(candidate: Candidate) -> Iterator[Exchange]:
    """The weight with the adapter applied, wherever the base weight is read."""
    torch.backends.mha.set_fastpath_enabled(False)  # put back with the other settings of the process
    with _Substitute(candidate).running() as exchange:
        yield exchange


class _Unfused(_Substitute):
    """Gives operations a copy of weights, fused with others or by itself, with the adapters of the layers that it stands for applied."""

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(candidate)
        self._weights = [(layer, weight) for layer in candidate.layers if (weight := _adapted_weight(layer)) is not None]
        self._blocks: dict[int, list[tuple[Any, int, bool, bool]]] = {}
        self._kept: list[torch.Tensor] = []  # keeps the keys of `_blocks` from being reused

    def _with_adapter(self, value: Any) -> Any:
        value = super()._with_adapter(value)
        if not isinstance(value, torch.Tensor) or value.dim() != 2 or value.requires_grad or not value.is_floating_point():
            return value
        key = storage_key(value)
        if key not in self._blocks:
            found = ((layer, block_of(value, weight.detach())) for layer, weight in self._weights if storage_key(weight) != key)
            self._blocks[key] = [(layer, *block) for layer, block in found if block is not None]
            self._kept.append(value)
        for layer, start, turned, weight_turned in self._blocks[key]:
            delta = sum(layer.get_delta_weight(name) for name in layer.active_adapters if name in layer.scaling)
            rows = (delta.t() if weight_turned else delta).to(value.dtype)
            total = value.shape[1] if turned else value.shape[0]
            block = nn.functional.pad(rows, (0, 0, start, total - start - rows.shape[0]))
            value = value + (block.t() if turned else block)
            self.acted = True
        return value


@contextmanager
def through_copy(candidate: Candidate) -> Iterator[Exchange]:
    """The adapters applied where a copy of their layers' weights is used."""
    with _Unfused(candidate).running() as exchange:
        yield exchange


@contextmanager
def _redirected(targets: Iterable[nn.Module], target_of: Callable[[nn.Module], nn.Module | None], exchange: Exchange) -> Iterator[Exchange]:
    """Whenever a module that has one of `targets` is called outside that target, answer with the target's output."""
    busy: list[nn.Module] = []

    def redirect(module: nn.Module, args: Any, kwargs: Any, _output: Any) -> Any:
        target = target_of(module)
        if target is None or target in busy:
            return None
        busy.append(target)
        exchange.acted = True
        try:
            return target(*args, **kwargs)
        finally:
            busy.remove(target)

    def enter(module: nn.Module, _args: Any) -> None:
        if id(module) in own:
            busy.append(module)

    def leave(module: nn.Module, _args: Any, _output: Any) -> None:
        if id(module) in own and module in busy:
            busy.remove(module)

    own = {id(target) for target in targets}
    hooks = (
        partial(register_module_forward_pre_hook, enter),
        partial(register_module_forward_hook, leave, always_call=True),
        partial(register_module_forward_hook, redirect, with_kwargs=True),
    )
    with hooked(*hooks):
        yield exchange


@contextmanager
def through_layer(candidate: Candidate) -> Iterator[Exchange]:
    """Replaced forwards taken away, and the adapter layer called wherever its base layer is."""
    exchange = _Substitute(candidate)
    for layer in (*candidate.layers, *candidate.wrappers):
        if "forward" in vars(layer):
            del layer.forward
            exchange.acted = True
    around = dict(map(partial(_base_and_around, candidate.subject.model), candidate.layers)) | {
        id(wrapper.original_module): wrapper for wrapper in candidate.wrappers
    }
    with _redirected(around.values(), lambda module: around.get(id(module)), exchange), exchange.running():
        yield exchange  # a kept method of the base layer is no call of a module: there the weight is what can be exchanged


def _base_and_around(model: nn.Module, layer: Any) -> tuple[int, nn.Module]:
    """What stands for the base of an adapter layer, by `id`, and what is to be called instead: for a prompt, the model that prepends it."""
    holder = prompted(model.modules()).get(id(layer))
    return (id(layer.base_layer), layer) if holder is None else (id(inside(holder.base_model)), holder)


@contextmanager
def through_original(candidate: Candidate) -> Iterator[Exchange]:
    """The adapted module called wherever its copy is."""
    model = candidate.subject.model
    copies = [copy for copy in candidate.trace.copies if set(copy.layers) & set(candidate.finding.modules)]
    originals = {copy.original: model.get_submodule(copy.original) for copy in copies}
    targets = {id(model.get_submodule(copy.copy)): originals[copy.original] for copy in copies if copy.copy is not None}
    unregistered = [originals[copy.original] for copy in copies if copy.copy is None]
    held = {id(module) for module in model.modules()}

    def target_of(module: nn.Module) -> nn.Module | None:
        if id(module) not in held and id(module) not in targets:
            match = copied_from(module, unregistered)
            if match is None:
                return None
            targets[id(module)] = match  # modules outside the model may be made anew by every run, so they are met only here
            kept.append(module)
        return targets.get(id(module))

    kept: list[nn.Module] = []  # keeps the ids in `targets` from being reused
    with _redirected(originals.values(), target_of, Exchange()) as exchange:
        yield exchange


class _Attached(Exchange, TorchFunctionMode):
    """Makes the detaching calls at given lines return what they were given."""

    def __init__(self, places: frozenset[Any]) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if (
            function_name(func) in DETACHING
            and not _is_below_autograd(func)
            and args[0].requires_grad
            and source(nearest_line()) in self._places
        ):
            self.acted = True
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def attached(candidate: Candidate) -> Iterator[Exchange]:
    """The detaches that the finding is about without effect."""
    modules = set(candidate.finding.modules)
    places = {cut.source for cut in candidate.trace.cuts if cut.kind == "detach" and modules.intersection(cut.layers)}
    with _Attached(frozenset(places)) as exchange:
        yield exchange
