"""The first real batch of a training, seen where it arrives: at the model's first forward."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_inspect.integrations import before_training

if TYPE_CHECKING:
    import torch

    from peft_inspect.api import Report

log = logging.getLogger("peft_inspect")


@dataclass(frozen=True)
class Settings:
    """How a callback judges: as `peft_inspect.check` takes it."""

    fail_on: str = "error"
    select: Iterable[str] = ()
    ignore: Iterable[str] | Mapping[str, str] = ()
    verify: bool = True
    loss: Callable[[Any, Any], torch.Tensor] | None = None


def check_at_first_forward(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, settings: Settings, done: Callable[[Report], None]
) -> None:
    """Check `model` as soon as it is called with gradients on, with the batch, the autocast and the optimizer of that very step.

    The hook that waits for the call is gone before the check runs, so that nothing of it is left on the model or in later steps.

    Raises, from inside that call:
        FindingsError: something is at or above `fail_on`.
        InspectionError: the model could not be inspected.
    """
    import torch

    def first(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        if not torch.is_grad_enabled():  # an evaluation or a generation before the first step
            return
        waiting.remove()
        batch = {**_named(module, arguments), **keywords}
        report = before_training(
            module,
            batch,
            loss=settings.loss,
            optimizer=optimizer,
            fail_on=settings.fail_on,
            select=settings.select,
            ignore=settings.ignore,
            verify=settings.verify,
        )
        done(report)
        log.log(logging.WARNING if report.findings else logging.INFO, "%s", report)

    waiting = model.register_forward_pre_hook(first, with_kwargs=True)


def _named(module: torch.nn.Module, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Positional inputs by the names that the model's forward gives them."""
    return dict(zip(inspect.signature(module.forward).parameters, arguments, strict=False))
