"""A callback for transformers' Trainer and everything built on it, TRL's trainers included."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_inspect.integrations.first_step import FirstStep

if TYPE_CHECKING:
    import torch

__all__ = ["PeftInspectCallback"]


class PeftInspectCallback(FirstStep, TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Checks the real model, the first real batch and the real optimizer before the first step.

        trainer = Trainer(model, arguments, train_dataset=data, callbacks=[PeftInspectCallback()])

    A training whose adapters are dead stops with the cause. A healthy one goes on as it would have: the model, its
    gradients and the random numbers are as they were, and later steps cost nothing.

    Attributes:
        report: of the check; None before it ran.
    """

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002  # the Trainer's signature
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        model: torch.nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **_: Any,
    ) -> None:
        """Wait for the first forward with gradients on: it has the batch and the autocast of that very step.

        The hook that waits is gone before the check runs, so that nothing of it is left on the model or in later steps.
        """
        import torch

        if model is None:
            return

        def first(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
            if torch.is_grad_enabled():  # else an evaluation or a generation before the first step
                waiting.remove()
                self._check(module, {**_named(module, arguments), **keywords}, optimizer)

        waiting = model.register_forward_pre_hook(first, with_kwargs=True)


def _named(module: torch.nn.Module, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Positional inputs by the names that the model's forward gives them."""
    return dict(zip(inspect.signature(module.forward).parameters, arguments, strict=False))
