"""A callback for transformers' Trainer and everything built on it, TRL's trainers included."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_inspect.api import FindingsError
from peft_inspect.integrations.first_step import FirstStep, log
from peft_inspect.integrations.trainer_loss import Check, watched

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    import torch

__all__ = ["PeftInspectCallback"]


# Every gradient exactly zero can be the batch's doing: a group of completions with equal rewards has no advantages. Such a step
# changes nothing, and the next batch will tell.
_ZERO, _PATIENCE = "PI310", 9


class PeftInspectCallback(FirstStep, TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Checks the real model, the first real batch, the Trainer's own loss and the real optimizer before the first step.

        trainer = Trainer(model, arguments, train_dataset=data, callbacks=[PeftInspectCallback()])

    A training whose adapters are dead stops with the cause. A healthy one goes on as it would have: the model, its
    gradients, the Trainer's logs and the random numbers are as they were, and later steps cost nothing.

    Attributes:
        report: of the check; None before it ran.
    """

    @cached_property
    def _waiting(self) -> list[Callable[[], None]]:
        """What ends each way of waiting for the first step."""
        return []

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002  # the Trainer's signature
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        model: torch.nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **_: Any,
    ) -> None:
        """Wait for the first loss with gradients on: it has the batch and the autocast of that very step.

        A Trainer whose steps do without `compute_loss` is checked at the first forward of its model. What waits is gone
        before the check runs, so that nothing of it is left on the model, on the Trainer or in later steps.
        """
        if model is None:
            return
        self._end_waiting()  # of a training that never came to its first step
        self.report = None

        def check(batch: Mapping[str, Any], loss: Callable[[Any, Any], torch.Tensor] | None = None) -> None:
            self._end_waiting()
            self._check(model, batch, optimizer, loss)

        trainer = _trainer()
        if trainer is not None:
            self._watch(trainer, check, _PATIENCE)
        self._waiting.append(_at_first_forward(model, check))

    def _end_waiting(self) -> None:
        while self._waiting:
            self._waiting.pop()()

    def _watch(self, trainer: Any, check: Check, patience: int) -> None:
        """Check at the next loss of the Trainer, and again at the one after it while a batch alone can be the cause."""

        def check_patiently(batch: Mapping[str, Any], loss: Callable[[Any, Any], torch.Tensor]) -> None:
            try:
                check(batch, loss)
            except FindingsError:
                if patience == 0 or self._wrong() != {_ZERO}:
                    raise
                self._watch(trainer, check, patience - 1)

        self._waiting.append(watched(trainer, check_patiently))

    def _wrong(self) -> set[str]:
        assert self.report is not None
        return {finding.code for finding in self.report.at_or_above(self._fail_on)}

    def on_train_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **_: Any,
    ) -> None:
        """A training in which nothing was checked does not pass for a checked one, nor one that ended before a batch told.

        Raises:
            FindingsError: every batch so far gave gradients that are exactly zero.
        """
        self._end_waiting()
        if self.report is None:
            log.warning("peft-inspect checked nothing: this training computed no loss with gradients")
        else:
            self.report.raise_for_findings(self._fail_on)


def _trainer() -> Any:
    """The Trainer that is calling: callbacks are not told whose they are."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Trainer):
            return caller
        frame = frame.f_back
    return None


def _at_first_forward(model: torch.nn.Module, check: Callable[[Mapping[str, Any]], None]) -> Callable[[], None]:
    import torch

    def first(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        if torch.is_grad_enabled():  # else an evaluation or a generation before the first step
            check({**_named(module, arguments), **keywords})

    return model.register_forward_pre_hook(first, with_kwargs=True).remove


def _named(module: torch.nn.Module, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Positional inputs by the names that the model's forward gives them."""
    return dict(zip(inspect.signature(module.forward).parameters, arguments, strict=False))
