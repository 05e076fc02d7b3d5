"""A callback for transformers' Trainer and everything built on it, TRL's trainers included."""

from __future__ import annotations

import sys
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_inspect.integrations.first_step import FirstStep, callers

__all__ = ["PeftInspectCallback"]


class PeftInspectCallback(FirstStep, TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Watches the first step of a Trainer: its real model, batch, loss and optimizer.

        trainer = Trainer(model, arguments, train_dataset=data, callbacks=[PeftInspectCallback()])

    A training whose adapters are dead stops with the cause; in a single process its weights are what they were. A healthy
    one goes on bit for bit as it would have, and later steps cost nothing. Under torchrun or accelerate all processes come
    to one verdict.

    Attributes:
        report: of the training; None before there is one.
    """

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Watch from the first step on."""
        # Callbacks are not told whose they are
        self._begin(next((caller for caller in callers(sys._getframe(1)) if isinstance(caller, Trainer)), self))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Judge a training that ended before an answer.

        Raises:
            FindingsError: something is at or above `fail_on`.
        """
        self._end()
