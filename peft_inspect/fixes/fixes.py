"""The fixes themselves: what the finding says to do, done in memory to the live model and undone.

A fix is a context manager over a `Candidate`. It shows that gradients arrive; it need not give the values that the
fixed program would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.checkpoint import checkpoint

from peft_inspect.fixes.candidate import Candidate
from peft_inspect.fixes.exchanges import Exchange, attached, through_adapter, through_copy, through_layer, through_original
from peft_inspect.internals import ACTIVE, DISABLED, require
from peft_inspect.records import AdapterLayerInfo, Remedy
from peft_inspect.reversible import hooked
from peft_inspect.trace.grad_mode import GradSwitches, replaced_checkpoint

Fix = Callable[[Candidate], AbstractContextManager[Exchange | None]]


@contextmanager
def _without_reentrant(_: Candidate) -> Iterator[None]:
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)

    with replaced_checkpoint(apply):
        yield


@contextmanager
def _inputs_require_grad(candidate: Candidate) -> Iterator[None]:
    """What `enable_input_require_grads()` does: floating inputs and what embeddings and stems make of them require grad."""
    for name, value in candidate.batch.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            candidate.batch[name] = value.detach().requires_grad_()

    def require(_module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point() and not output.requires_grad and torch.is_grad_enabled():
            output.requires_grad_()

    with hooked(partial(register_module_forward_hook, require)):
        yield


@contextmanager
def _unfreeze(candidate: Candidate) -> Iterator[None]:
    for weights in candidate.weights.values():
        for weight in weights:
            weight.requires_grad_(True)
    yield


@contextmanager
def _gradients_on(candidate: Candidate) -> Iterator[None]:
    places = frozenset({candidate.finding.source} if candidate.finding.source else set())
    with torch.enable_grad(), GradSwitches(overruled=places).watching():
        yield


def _in_state(state: Callable[[Any, AdapterLayerInfo], Mapping[str, Any]], internal: str | None = None) -> Fix:
    """Put the layers into a state, before the forward and at every call, whatever the forward does to them in between.

    `internal` is the attribute of PEFT's that says so, where it is one of its own.
    """

    @contextmanager
    def fix(candidate: Candidate) -> Iterator[None]:
        if internal is not None:
            require(internal)
        row = {id(candidate.subject.model.get_submodule(row.path)): row for row in candidate.rows}

        def set_state(module: nn.Module, _args: Any) -> None:
            if id(module) in row:
                vars(module).update(state(module, row[id(module)]))
                for path in row[id(module)].parameters:
                    candidate.subject.model.get_parameter(path).requires_grad_(True)  # disabling and deactivating freeze

        for layer in candidate.layers:
            set_state(layer, ())  # hooks further out may ask before the first layer is called
        with hooked(partial(register_module_forward_pre_hook, set_state)):
            yield

    return fix


@contextmanager
def _perturbed(candidate: Candidate) -> Iterator[None]:
    with torch.no_grad():
        for row in candidate.rows:
            for path in row.parameters:
                parameter = candidate.subject.model.get_parameter(path)
                parameter.add_(0.01 * torch.randn_like(parameter))
    yield


@contextmanager
def _labelled(candidate: Candidate) -> Iterator[Exchange]:
    """Labels, and what else of the batch holds nothing but the ignore index, are replaced by what counts."""
    ignored, exchange = candidate.finding.ignore_index, Exchange()
    for name, value in candidate.batch.items():
        if isinstance(value, torch.Tensor) and not value.is_floating_point() and ("label" in name or bool((value == ignored).all())):
            ids = candidate.batch.get("input_ids")
            same_shape = isinstance(ids, torch.Tensor) and ids.shape == value.shape
            candidate.batch[name] = (
                ids.clone() if same_shape and isinstance(ids, torch.Tensor) else torch.full_like(value, int(ignored == 0))
            )
            exchange.acted = True
    yield exchange


@contextmanager
def _in_float32(candidate: Candidate) -> Iterator[None]:
    model = candidate.subject.model
    halves = [parameter for parameter in model.parameters() if parameter.dtype in (torch.float16, torch.bfloat16)]
    for parameter in halves:
        parameter.data = parameter.data.float()
    for name, value in candidate.batch.items():
        if isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16):
            candidate.batch[name] = value.float()
    yield


def _scaled(layer: Any, row: AdapterLayerInfo) -> Mapping[str, Any]:
    return {"scaling": {**layer.scaling, row.adapter: 1.0}}


def fix_for(remedy: Remedy) -> Fix:
    """What does the remedy. The type checker holds the list complete."""
    match remedy:
        case Remedy.NON_REENTRANT:
            return _without_reentrant
        case Remedy.INPUT_GRADIENTS:
            return _inputs_require_grad
        case Remedy.UNFREEZE:
            return _unfreeze
        case Remedy.GRADIENTS_ON:
            return _gradients_on
        case Remedy.ENABLE:
            return _in_state(lambda _layer, _row: {DISABLED: False}, "disable_adapters")
        case Remedy.UNMERGE:
            return _in_state(lambda _layer, _row: {"merged_adapters": []})
        case Remedy.ACTIVATE:
            return _in_state(lambda _layer, row: {ACTIVE: [row.adapter]}, "active_adapter")
        case Remedy.THROUGH_ADAPTER:
            return through_adapter
        case Remedy.THROUGH_COPY:
            return through_copy
        case Remedy.THROUGH_LAYER:
            return through_layer
        case Remedy.THROUGH_ORIGINAL:
            return through_original
        case Remedy.ATTACHED:
            return attached
        case Remedy.SCALING:
            return _in_state(_scaled)
        case Remedy.INITIALISE:
            return _perturbed
        case Remedy.LABELS:
            return _labelled
        case Remedy.FLOAT32:
            return _in_float32


# Where a finding names a second way to fix it, and the first may not suit the model: PEFT's aLoRA recomputes only in the reentrant way.
ALTERNATIVES: Mapping[Remedy, Remedy] = {Remedy.NON_REENTRANT: Remedy.INPUT_GRADIENTS}
