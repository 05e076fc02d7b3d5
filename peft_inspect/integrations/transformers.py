"""A callback for transformers' Trainer and everything built on it, TRL's trainers included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_inspect.integrations.first_forward import Settings, check_at_first_forward

if TYPE_CHECKING:
    import torch

    from peft_inspect.api import Report

__all__ = ["PeftInspectCallback"]


class PeftInspectCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Checks the real model, the first real batch and the real optimizer before the first step.

        trainer = Trainer(model, arguments, train_dataset=data, callbacks=[PeftInspectCallback()])

    A training whose adapters are dead stops with the cause. A healthy one goes on as it would have: the model, its
    gradients and the random numbers are as they were, and later steps cost nothing.

    Attributes:
        report: of the check; None before it ran.
    """

    def __init__(
        self,
        fail_on: str = "error",
        *,
        select: Iterable[str] = (),
        ignore: Iterable[str] | Mapping[str, str] = (),
        verify: bool = True,
        loss: Callable[[Any, Any], torch.Tensor] | None = None,
    ) -> None:
        """`fail_on` is a severity, or "never"; the rest is as `peft_inspect.check` takes it."""
        self._settings = Settings(fail_on, select, ignore, verify, loss)
        self.report: Report | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002  # the Trainer's signature
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        model: torch.nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **_: Any,
    ) -> None:
        """Wait for the first step."""
        if model is not None:
            check_at_first_forward(model, optimizer, self._settings, self._keep)

    def _keep(self, report: Report) -> None:
        self.report = report
