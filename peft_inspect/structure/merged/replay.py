"""Merging one adapter layer anew, by PEFT's own code, in pieces that fit into memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import Embedding as LoraEmbedding
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import ParamWrapper
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Precision:
    """The dtypes that a merge may have been made in: that of the base as it was loaded, and that of the adapter."""

    base: torch.dtype
    adapter: torch.dtype


def precisions(base: torch.dtype, merged: torch.dtype, adapter: torch.dtype) -> tuple[Precision, ...]:
    """Those that are usual, the most usual first: PEFT keeps half-precision adapters in float32 unless it is told not to."""
    wide = torch.float32 if adapter in _HALVES else adapter
    every = [
        *(Precision(dtype, wide) for dtype in (base, merged, torch.float32)),
        *(Precision(dtype, dtype) for dtype in (base, merged)),
        *(Precision(dtype, adapter) for dtype in (base, merged)),
    ]
    return tuple(dict.fromkeys(every))


class Replay:
    """One adapter layer that is filled and merged piece by piece.

    Args:
        layer: of the live model; it is copied, and its values are not read.
        name: of the adapter.
        values: of the adapter, by their paths inside the layer.
        weight: the parameter of the base layer that is changed.
    """

    def __init__(self, layer: nn.Module, name: str, values: Mapping[str, Tensor], weight: str) -> None:
        self._layer, self._name, self._values, self._weight = layer, name, values, weight

    @property
    def rows(self) -> int | None:
        """The least number of rows that can be merged by themselves; None where the layer has to be merged as a whole."""
        if isinstance(self._layer, ParamWrapper):
            # One expert alone would take another way through PEFT's code than several do.
            return 2 if self._layer.num_experts > 2 else None
        if isinstance(self._layer, TrainableTokensLayer) or type(self._layer) is LoraEmbedding:
            return None if getattr(self._layer, "use_dora", {}).get(self._name) else 1
        base: Any = self._layer.get_base_layer()  # type: ignore[operator]
        plain = type(self._layer) is LoraLinear and not isinstance(base, Conv1D) and self._weight == "weight"
        return 1 if plain else None

    def merged(self, precision: Precision, *, base: Tensor, start: int, stop: int) -> Tensor:
        """The rows from `start` to `stop` of the parameter after the merge.

        Args:
            precision: the dtypes to merge in.
            base: those rows of the base, as stored.
            start: the first row.
            stop: the row after the last.
        """
        if isinstance(self._layer, TrainableTokensLayer) and not self._inside(start, stop):
            return base.to(precision.base)
        layer: Any = copy.deepcopy(self._layer)
        holder = layer.get_base_layer()
        weight = base.to(precision.base, copy=True)
        holder._parameters[self._weight] = nn.Parameter(weight, requires_grad=False)
        if self._weight == "bias":  # the weight beside it is merged by itself, and only has to be there
            holder._parameters["weight"] = nn.Parameter(torch.zeros(holder.weight.shape, dtype=precision.base), requires_grad=False)
        elif not isinstance(layer, ParamWrapper) and getattr(holder, "bias", None) is not None:
            holder._parameters["bias"] = nn.Parameter(torch.zeros(holder.bias.shape, dtype=precision.base), requires_grad=False)
        for path, value in self._piece(layer, start, stop).items():
            owner, _, leaf = path.rpartition(".")
            module = layer.get_submodule(owner)
            held = nn.Parameter(value.to(precision.adapter, copy=True), requires_grad=False)
            if leaf in module._parameters or isinstance(module, nn.ParameterDict):
                module._parameters[leaf] = held
            else:
                module._buffers[leaf] = held.data
        with torch.no_grad():
            layer.merge(adapter_names=[self._name])
        result: Tensor = getattr(layer.get_base_layer(), self._weight)
        return result.detach()

    def _piece(self, layer: Any, start: int, stop: int) -> Mapping[str, Tensor]:
        """The adapter's values for some rows of the parameter."""
        if self.rows is None:
            return self._values
        first, second = f"lora_A.{self._name}.weight", f"lora_B.{self._name}.weight"
        values = dict(self._values)
        if isinstance(layer, ParamWrapper):
            experts = layer.num_experts
            layer.num_experts = stop - start
            down, up = values[first], values[second]
            values[first] = down.view(experts, -1, down.shape[-1])[start:stop].reshape(-1, down.shape[-1])
            values[second] = up.view(up.shape[0], -1, experts)[:, :, start:stop].reshape(up.shape[0], -1)
            return values
        if isinstance(layer, TrainableTokensLayer):
            return self._tokens(layer, start, stop)
        if type(layer) is LoraEmbedding:
            return {path: value[:, start:stop] if path == f"lora_embedding_A.{self._name}" else value for path, value in values.items()}
        for path in (second, f"lora_B.{self._name}.bias", f"lora_magnitude_vector.{self._name}.weight"):
            if path in values:
                values[path] = values[path][start:stop]
        return values

    def _inside(self, start: int, stop: int) -> list[int]:
        """The places of the trained tokens that are among some rows."""
        indices: Any = self._layer.token_indices
        return [place for place, index in enumerate(indices[self._name]) if start <= index < stop]

    def _tokens(self, layer: Any, start: int, stop: int) -> Mapping[str, Tensor]:
        """The trained tokens among some rows."""
        path = f"trainable_tokens_delta.{self._name}"
        indices, inside = list(layer.token_indices[self._name]), self._inside(start, stop)
        layer.token_indices[self._name] = [indices[place] - start for place in inside]
        return {**self._values, path: self._values[path][inside]}
