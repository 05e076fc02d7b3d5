"""Where training happens: one check of the real model, batch and optimizer before the first step.

`before_training` is for a loop of one's own; `.transformers` has a callback for Trainer and TRL, `.lightning` one for
Lightning, `.pytest` a fixture. Nothing here is imported further until it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from peft_inspect.api import Report
    from peft_inspect.records import Severity

__all__ = ["before_training"]


def before_training(
    model: torch.nn.Module,
    batch: Mapping[str, Any] | None = None,
    *,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    fail_on: Severity | str = "error",
    select: Iterable[str] = (),
    ignore: Iterable[str] | Mapping[str, str] = (),
    verify: bool = True,
) -> Report:
    """Check a model before its first step, and raise when something is at or above `fail_on`. The model is left as it was.

    Takes what `peft_inspect.check` takes.

    Raises:
        FindingsError: with the text report as its message.
        InspectionError: the model could not be inspected.
    """
    from peft_inspect.api import check

    report = check(model, batch, loss=loss, optimizer=optimizer, select=select, ignore=ignore, verify=verify)
    report.raise_for_findings(fail_on)
    return report
