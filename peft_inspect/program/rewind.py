"""The weights of a training with a fault, as they were before its first step: to answer takes steps that train the rest of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peft_inspect.structure.optimizers import held_by
from peft_inspect.structure.shards import local

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


class Rewind:
    """What optimizers move, kept before their first step; put back where the training is stopped."""

    def __init__(self) -> None:
        self._kept: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def keep(self, optimizer: Optimizer) -> None:
        """Before its step. Only the first one counts."""
        if id(optimizer) not in self._kept:
            held = (local(tensor.detach()) for tensor in held_by(optimizer) if tensor.requires_grad and not tensor.is_meta)
            self._kept[id(optimizer)] = [(tensor, tensor.clone()) for tensor in held]

    def put_back(self) -> None:
        """The values of then."""
        with torch.no_grad():
            for pairs in self._kept.values():
                for tensor, value in pairs:
                    tensor.copy_(value)
        self._kept.clear()
