"""When the step of a model is over: several optimizers may train it, or others step beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_inspect.program.live import holds, optimizers_of
from peft_inspect.program.roots import Root
from peft_inspect.structure.optimizers import held_by

if TYPE_CHECKING:
    from torch.optim import Optimizer

PATIENCE = 10
"""Steps of other optimizers that one which holds the adapters is waited for; for a model with any, so many times `--steps`."""


def is_over(root: Root, optimizer: Optimizer) -> bool:
    """Whether the step of this model is over with that of this optimizer: no other one holds adapters of it that could still step."""
    trainable = {id(parameter) for parameter in root.trainable}
    if holds(optimizer, trainable):
        root.stepped |= {id(tensor) for tensor in held_by(optimizer)}
        return not {id(tensor) for other in optimizers_of(root.trainable) for tensor in held_by(other)} & trainable - root.stepped
    root.foreign[id(optimizer)] = steps = root.foreign.get(id(optimizer), 0) + 1
    if steps >= PATIENCE:
        return True
    if trainable and optimizers_of(root.trainable):
        return False
    return steps > 1 or holds(optimizer, {id(parameter) for parameter in root.layers.parameters.values()})
