"""The loss that a Trainer computes, as the check runs it: on inputs of its own, and without a trace in the Trainer's logs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from peft_inspect.reversible import Reversible
from peft_inspect.run.reachable import kept_container

_DATA = frozenset({"train_dataset", "eval_dataset"})  # large, and no loss writes into them


Check = Callable[[Mapping[str, Any], Callable[[Any, Any], torch.Tensor]], None]  # given the batch and the loss of a step


def watched(trainer: Any, check: Check) -> Callable[[], None]:
    """Have `check` called before the first loss that is computed with gradients on; returns what ends the waiting."""
    own = vars(trainer).get("compute_loss")
    compute: Callable[..., Any] = trainer.compute_loss

    def end() -> None:
        if vars(trainer).get("compute_loss") is first:
            del trainer.compute_loss
            if own is not None:
                trainer.compute_loss = own

    def first(model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
        if torch.is_grad_enabled():  # else an evaluation before the first step

            def loss(inspected: Any, _: Mapping[str, Any]) -> torch.Tensor:
                with _unlogged(trainer):
                    found = compute(inspected, _own_copy(inputs), *arguments, **keywords)
                loss = found[0] if isinstance(found, tuple) else found
                return loss.mean() if isinstance(loss, torch.Tensor) else loss  # as for several devices

            end()
            check(inputs if isinstance(inputs, Mapping) else {"inputs": inputs}, loss)
        return compute(model, inputs, *arguments, **keywords)

    trainer.compute_loss = first
    return end


def _own_copy(inputs: Any) -> Any:
    """Inputs of the same kind whose items may be taken out and whose tensors may be written into."""
    if isinstance(inputs, torch.Tensor):
        return inputs.detach().clone()
    if isinstance(inputs, Mapping):
        new: Any = copy.copy(inputs)
        new.update({name: _own_copy(value) for name, value in inputs.items()})
        return new
    if type(inputs) in (list, tuple):
        return type(inputs)(map(_own_copy, inputs))
    return inputs


class _unlogged(Reversible[None]):  # noqa: N801 - reads as what it does
    """What a loss leaves on its Trainer, such as metrics in lists and counters, is gone afterwards."""

    def __init__(self, trainer: Any) -> None:
        attributes = vars(trainer)
        self._restores = [
            kept_container(value) for value in (attributes, *_containers(item for name, item in attributes.items() if name not in _DATA))
        ]

    def set_up(self) -> None:
        """All is noted already."""

    def put_back(self) -> None:
        """Refill what has changed."""
        for restore in self._restores:
            restore()


def _containers(values: Iterator[Any]) -> list[Any]:
    found: dict[int, Any] = {}
    pending = list(values)
    while pending:
        value = pending.pop()
        if isinstance(value, (dict, list, set)) and id(value) not in found:
            found[id(value)] = value
            pending.extend(value.values() if isinstance(value, dict) else value)
    return list(found.values())
