"""What every adapter parameter and every other trainable parameter got from the backward."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from peft_inspect.internals import find
from peft_inspect.records import GradientInfo, GradientState
from peft_inspect.structure.shards import local

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from torch import Tensor

    from peft_inspect.records import Structure


def read_gradients(
    parameters: Mapping[str, Tensor], structure: Structure, connected: set[int], *, values: bool
) -> tuple[GradientInfo, ...]:
    """One row per adapter parameter and per other trainable parameter, in the order of the structure.

    `parameters` are the live ones by path. `connected` holds the `id` of every parameter that a gradient reached.
    With `values`, the gradients themselves are measured: the largest magnitude tells zero and non-finite, the L2
    norm is shown.
    """
    owner = {path: layer for layer in structure.adapter_layers for path in layer.parameters}
    live = {info.path: parameters[info.path] for info in structure.parameters if info.requires_grad or info.path in owner}
    measured = _measured({path: parameter.grad for path, parameter in live.items() if parameter.grad is not None}) if values else {}
    rows = []
    for path, parameter in live.items():
        layer = owner.get(path)
        state = _state(parameter, id(parameter) in connected, measured.get(path))
        norm = measured[path][1] if path in measured and math.isfinite(measured[path][1]) else None
        rows.append(GradientInfo(path, layer.path if layer else None, layer.adapter if layer else None, state, norm))
    return zeros_of_initialisation(tuple(rows), structure)


def _state(parameter: Tensor, connected: bool, measured: tuple[float, float] | None) -> GradientState:
    if not parameter.requires_grad:
        return "frozen"
    if not connected:
        return "none"
    if measured is None:
        return "ok"
    largest = measured[0]
    if not math.isfinite(largest):
        return "nonfinite"
    return "zero" if largest == 0 else "ok"


def _measured(gradients: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """The largest magnitude and the L2 norm of each gradient, in float32; one transfer per device.

    A norm that is neither zero nor infinite says as much of the state as the largest magnitude, and stands for it.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = defaultdict(list)
    for path, gradient in gradients.items():
        here = local(gradient)
        dense = here.coalesce().values() if here.is_sparse else here
        groups[dense.device, dense.dtype].append((path, dense))
    result = {}
    for group in groups.values():
        filled = [(path, tensor) for path, tensor in group if tensor.numel()]
        result.update({path: (0.0, 0.0) for path, tensor in group if not tensor.numel()})
        norms = _norms(filled, 2.0)
        result.update({path: (norm, norm) for (path, _), norm in zip(filled, norms, strict=True)})
        unsure = [(named, norm) for named, norm in zip(filled, norms, strict=True) if not 0 < norm < math.inf]
        for ((path, _), norm), largest in zip(unsure, _norms([named for named, _ in unsure], math.inf), strict=True):
            result[path] = (largest, norm)
    return result


def _norms(group: Iterable[tuple[str, Tensor]], order: float) -> list[float]:
    tensors = [tensor for _, tensor in group]
    dtype = torch.float64 if tensors and tensors[0].dtype == torch.float64 else torch.float32  # all of a group have one
    norms: list[float] = torch.stack([norm.float() for norm in _each_norm(tensors, order, dtype)]).tolist() if tensors else []
    return norms


def _one_by_one(tensors: list[Tensor], order: float, dtype: torch.dtype) -> list[Tensor]:
    return [torch.linalg.vector_norm(tensor, order, dtype=dtype) for tensor in tensors]


_each_norm = find("foreach_norm") or _one_by_one


def zeros_of_initialisation(rows: tuple[GradientInfo, ...], structure: Structure) -> tuple[GradientInfo, ...]:
    """Tell zeros that the values of a fresh adapter imply from zeros that something causes.

    The gradient of one factor is a product with the other factors. Where a partner in the same layer holds
    nothing but zeros and itself gets a gradient, the way to the loss is open and the zero is due to the
    partner's values: `lora_A` while `lora_B` is zero, the reverse on embeddings, both beside AdaLoRA's `lora_E`.
    """
    by_path = {row.path: row for row in rows}
    implied: set[str] = set()
    for layer in structure.adapter_layers:
        of_layer = [by_path[path] for path in layer.parameters if path in by_path]
        if any(row.state == "ok" and structure.parameter[row.path].zero for row in of_layer):
            implied |= {row.path for row in of_layer if row.state == "zero"}
    return tuple(_with_state(row, "zero-at-init") if row.path in implied else row for row in rows)


def zeros_at_init(rows: tuple[GradientInfo, ...], layers: Collection[str]) -> tuple[GradientInfo, ...]:
    """The same rows where the zeros of these adapter layers are due to weights that start at zero and are trained."""
    return tuple(_with_state(row, "zero-at-init") if row.state == "zero" and row.layer in layers else row for row in rows)


def _with_state(row: GradientInfo, state: GradientState) -> GradientInfo:
    return GradientInfo(row.path, row.layer, row.adapter, state, row.norm)
