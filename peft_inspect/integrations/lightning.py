"""A callback for Lightning's Trainer."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from peft_inspect.integrations.first_step import FirstStep

__all__ = ["PeftInspectCallback"]


class PeftInspectCallback(FirstStep, Callback):  # type: ignore[misc]  # lightning is optional
    """Watches the first step of a LightningModule, with automatic or manual optimization: its real batch, loss and optimizers.

        trainer = Trainer(callbacks=[PeftInspectCallback()])

    A training whose adapters are dead stops with the cause; in a single process its weights are what they were. A healthy
    one goes on bit for bit as it would have, and later steps cost nothing. With several devices all processes come to one
    verdict.

    Attributes:
        report: of the training; None before there is one.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning's signature
        """Watch from the first step on."""
        self._begin(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Judge a training that ended before an answer.

        Raises:
            FindingsError: something is at or above `fail_on`.
        """
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Watch no longer."""
        self._leave()
