"""The fixes themselves: what the finding says to do, done in memory to the live model and undone.

A fix is a context manager over a `Patient`. It shows that gradients arrive; it need not give the values that the
fixed program would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from peft_inspect.observe.copies import copied_from
from peft_inspect.observe.flow import DETACHING, function_name
from peft_inspect.observe.grad_mode import GradSwitches
from peft_inspect.observe.sources import nearest, source
from peft_inspect.observe.weightless import storage_key
from peft_inspect.records import AdapterLayerInfo, Finding, Subject, Trace


@dataclass(frozen=True)
class Patient:
    """What a remedy is applied to."""

    subject: Subject
    trace: Trace
    finding: Finding
    batch: dict[str, Any]  # a copy of this try

    @property
    def rows(self) -> tuple[AdapterLayerInfo, ...]:
        """The adapter layer rows of the finding: of the adapter it is about, else of those in use."""
        modules, adapter = set(self.finding.modules), self.finding.facts.get("adapter")
        rows = (layer for layer in self.trace.structure.adapter_layers if layer.path in modules)
        return tuple(layer for layer in rows if (layer.active if adapter is None else layer.adapter == adapter))

    @property
    def layers(self) -> tuple[Any, ...]:
        """The adapter layers of the finding, live, each once."""
        return tuple(self.subject.model.get_submodule(path) for path in dict.fromkeys(row.path for row in self.rows))


Remedy = Callable[[Patient], AbstractContextManager[object]]


@contextmanager
def _without_reentrant(_: Patient) -> Iterator[None]:
    """Stand in for the autograd function of reentrant checkpointing, wherever `checkpoint` was imported to."""
    from torch.utils import checkpoint

    class NonReentrant:
        @staticmethod
        def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
            return checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)

    original = checkpoint.CheckpointFunction
    checkpoint.CheckpointFunction = NonReentrant  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        checkpoint.CheckpointFunction = original  # type: ignore[misc]


@contextmanager
def _inputs_require_grad(patient: Patient) -> Iterator[None]:
    """What `enable_input_require_grads()` does: floating inputs and what embeddings and stems make of them require grad."""
    for name, value in patient.batch.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            patient.batch[name] = value.detach().requires_grad_()

    def require(_module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point() and not output.requires_grad and torch.is_grad_enabled():
            output.requires_grad_()

    handle = register_module_forward_hook(require)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _unfreeze(patient: Patient) -> Iterator[None]:
    for row in patient.rows:
        for path in row.parameters:
            patient.subject.model.get_parameter(path).requires_grad_(True)
    yield


@contextmanager
def _gradients_on(patient: Patient) -> Iterator[None]:
    places = frozenset({patient.finding.source} if patient.finding.source else set())
    with torch.enable_grad(), GradSwitches(overruled=places).watching():
        yield


def _in_state(state: Callable[[Any, AdapterLayerInfo], Mapping[str, Any]]) -> Remedy:
    """Put the layers into a state, before the forward and at every call, whatever the forward does to them in between."""

    @contextmanager
    def remedy(patient: Patient) -> Iterator[None]:
        row = {id(patient.subject.model.get_submodule(row.path)): row for row in patient.rows}

        def set_state(module: nn.Module, _args: Any) -> None:
            if id(module) in row:
                vars(module).update(state(module, row[id(module)]))
                for path in row[id(module)].parameters:
                    patient.subject.model.get_parameter(path).requires_grad_(True)  # disabling and deactivating freeze

        for layer in patient.layers:
            set_state(layer, ())  # hooks further out may ask before the first layer is called
        handle = register_module_forward_pre_hook(set_state)
        try:
            yield
        finally:
            handle.remove()

    return remedy


_TRANSPOSED = frozenset({"T", "mT", "H", "mH"})  # properties that give the weight itself; others look at its metadata


class _Substitute(TorchFunctionMode):
    """Gives operations outside an adapter layer the weight with the adapter applied, in place of the base weight."""

    def __init__(self, layers: Iterable[Any]) -> None:
        super().__init__()
        self._layer_of = {storage_key(layer.get_base_layer().weight): layer for layer in layers if hasattr(layer, "get_delta_weight")}
        self._running: list[nn.Module] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
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
        layer = self._layer_of.get(storage_key(value))
        if layer is None or layer in self._running or value.shape != layer.get_base_layer().weight.shape:
            return value
        return value + sum(layer.get_delta_weight(name).to(value.dtype) for name in layer.active_adapters if name in layer.scaling)

    def _leave(self, module: nn.Module, _args: Any, _output: Any) -> None:
        while self._running and self._running.pop() is not module:
            pass

    def _applied(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """What custom autograd functions are called through: torch shows their operands to no mode."""

        def with_adapter(cls: type, *args: Any, **kwargs: Any) -> Any:
            return apply(cls, *self._with_adapter(args), **kwargs)

        return with_adapter

    @contextmanager
    def running(self) -> Iterator[None]:
        """Adapter layers that run apply their adapter themselves."""
        apply = vars(torch.autograd.Function)["apply"]
        torch.autograd.Function.apply = classmethod(self._applied(apply.__func__))  # type: ignore[assignment, method-assign]
        handles = [
            register_module_forward_pre_hook(lambda module, _args: self._running.append(module)),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            with self:
                yield
        finally:
            torch.autograd.Function.apply = apply  # type: ignore[method-assign]
            for handle in handles:
                handle.remove()


@contextmanager
def _through_adapter(patient: Patient) -> Iterator[None]:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _Substitute(patient.layers).running():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


@contextmanager
def _redirected(targets: Iterable[nn.Module], target_of: Callable[[nn.Module], nn.Module | None]) -> Iterator[None]:
    """Whenever a module that has one of `targets` is called outside that target, answer with the target's output."""
    busy: list[nn.Module] = []

    def redirect(module: nn.Module, args: Any, kwargs: Any, _output: Any) -> Any:
        target = target_of(module)
        if target is None or target in busy:
            return None
        busy.append(target)
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
    handles = [
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
        register_module_forward_hook(redirect, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _through_layer(patient: Patient) -> Iterator[None]:
    replaced = [layer for layer in patient.layers if "forward" in vars(layer)]
    for layer in replaced:
        del layer.forward
    around = {id(layer.base_layer): layer for layer in patient.layers}
    with _redirected(around.values(), lambda module: around.get(id(module))), _Substitute(patient.layers).running():
        yield  # a kept method of the base layer is no call of a module: there the weight is what can be exchanged


@contextmanager
def _through_original(patient: Patient) -> Iterator[None]:
    model = patient.subject.model
    copies = [copy for copy in patient.trace.copies if set(copy.layers) & set(patient.finding.modules)]
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
    with _redirected(originals.values(), target_of):
        yield


class _Attached(TorchFunctionMode):
    """Makes the detaching calls at given lines return what they were given."""

    def __init__(self, places: frozenset[Any]) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function_name(func) in DETACHING and args[0].requires_grad and source(nearest()) in self._places:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def _attached(patient: Patient) -> Iterator[None]:
    with _Attached(frozenset({patient.finding.source})):
        yield


@contextmanager
def _perturbed(patient: Patient) -> Iterator[None]:
    with torch.no_grad():
        for row in patient.rows:
            for path in row.parameters:
                parameter = patient.subject.model.get_parameter(path)
                parameter.add_(0.01 * torch.randn_like(parameter))
    yield


@contextmanager
def _labelled(patient: Patient) -> Iterator[None]:
    for name, value in patient.batch.items():
        if "label" in name and isinstance(value, torch.Tensor):
            ids = patient.batch.get("input_ids")
            same_shape = isinstance(ids, torch.Tensor) and ids.shape == value.shape
            patient.batch[name] = ids.clone() if same_shape and isinstance(ids, torch.Tensor) else torch.zeros_like(value)
    yield


@contextmanager
def _in_float32(patient: Patient) -> Iterator[None]:
    model = patient.subject.model
    halves = [parameter for parameter in model.parameters() if parameter.dtype in (torch.float16, torch.bfloat16)]
    for parameter in halves:
        parameter.data = parameter.data.float()
    for name, value in patient.batch.items():
        if isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16):
            patient.batch[name] = value.float()
    yield


def _scaled(layer: Any, row: AdapterLayerInfo) -> Mapping[str, Any]:
    return {"scaling": {**layer.scaling, row.adapter: 1.0}}


FIXES: Mapping[str, tuple[str, Remedy]] = {
    "non-reentrant": ("use_reentrant=False", _without_reentrant),
    "input-gradients": ("inputs that require grad", _inputs_require_grad),
    "unfreeze": ("requires_grad=True", _unfreeze),
    "gradients-on": ("gradients left on at that line", _gradients_on),
    "enable": ("adapters enabled", _in_state(lambda _layer, _row: {"_disable_adapters": False})),
    "unmerge": ("adapters unmerged", _in_state(lambda _layer, _row: {"merged_adapters": []})),
    "activate": ("the adapter active", _in_state(lambda _layer, row: {"_active_adapter": [row.adapter]})),
    "through-adapter": ("the adapter applied where the weight is read", _through_adapter),
    "through-layer": ("the adapter layer called instead", _through_layer),
    "through-original": ("the original called instead of its copy", _through_original),
    "attached": ("the graph kept at that line", _attached),
    "scaling": ("scaling 1.0", _in_state(_scaled)),
    "initialise": ("factors that are not zero", _perturbed),
    "labels": ("supervised labels", _labelled),
    "float32": ("float32 weights", _in_float32),
}

# Where a finding names a second way to mend it, and the first may not suit the model: PEFT's aLoRA recomputes only in the reentrant way.
ALTERNATIVES: Mapping[str, str] = {"non-reentrant": "input-gradients"}
