"""A callback for Lightning's Trainer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_utilities.core.apply_func import apply_to_collection

from peft_inspect.integrations.first_step import FirstStep
from peft_inspect.records import InspectionError
from peft_inspect.reversible import patched

__all__ = ["PeftInspectCallback"]


class PeftInspectCallback(FirstStep, Callback):  # type: ignore[misc]  # lightning is optional
    """Checks the LightningModule, its first batch and its optimizers before the first step.

        trainer = Trainer(callbacks=[PeftInspectCallback()])

    What is trained is what `training_step` returns; with manual optimization, what it hands to `manual_backward` first.
    A training whose adapters are dead stops with the cause. A healthy one goes on as it would have: the model, its
    gradients, its logs and the random numbers are as they were, and later steps cost nothing.

    Attributes:
        report: of the check; None before it ran.
    """

    _waiting = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning's signature
        """Wait for the first step."""
        self._waiting = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Check at the first batch, in the precision of that step."""
        if not self._waiting:
            return
        self._waiting = False

        def loss(module: LightningModule, _: Mapping[str, Any]) -> Any:
            return _trained_by(module, apply_to_collection(batch, torch.Tensor, torch.clone), batch_idx)

        inputs = {str(name): value for name, value in batch.items()} if isinstance(batch, Mapping) else {"batch": batch}
        optimizers: Any = SimpleNamespace(param_groups=[group for optimizer in trainer.optimizers for group in optimizer.param_groups])
        with trainer.precision_plugin.train_step_context():
            self._check(pl_module, inputs, optimizers, loss)


class _BackwardReached(BaseException):
    """Ends a training step with manual optimization at its backward, past every `except Exception` of the user."""

    def __init__(self, loss: torch.Tensor) -> None:
        self.loss = loss


def _trained_by(module: LightningModule, batch: Any, index: int) -> Any:
    """What the training step trains.

    Raises:
        InspectionError: the step fetches its batches itself.
    """
    names = inspect.signature(module.training_step).parameters
    if "dataloader_iter" in names:
        raise InspectionError("training_step takes a dataloader_iter, whose batches are gone once read: call before_training with one")
    arguments = (batch, index) if len(names) > 1 or any(name.kind is name.VAR_POSITIONAL for name in names.values()) else (batch,)
    try:
        with _cut_off(module):
            output = module.training_step(*arguments)
    except _BackwardReached as reached:
        return reached.loss
    return output["loss"] if isinstance(output, Mapping) else output


def _cut_off(module: LightningModule) -> AbstractContextManager[None]:
    """The module without a way to the Trainer's logs, or on to an optimizer's step."""

    def no_log(*_: Any, **__: Any) -> None:
        """Log nothing."""

    def backward(loss: torch.Tensor, *_: Any, **__: Any) -> None:
        raise _BackwardReached(loss)

    own = {"log": no_log, "log_dict": no_log, "manual_backward": backward}
    return patched(*((module, name, partial(_instead, function)) for name, function in own.items()))


def _instead(function: Callable[..., None], _original: object) -> Callable[..., None]:
    return function
