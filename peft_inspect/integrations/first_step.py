"""What the callbacks share: how they are told to judge, and one check at the first step of a training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from peft_inspect.api import Report, check
from peft_inspect.records import Severity

if TYPE_CHECKING:
    import torch

log = logging.getLogger("peft_inspect")


class FirstStep:
    """Checks the real model, the real batch and the real optimizer before the first step of a training.

    Attributes:
        report: of the check; None before it ran.
    """

    def __init__(
        self,
        fail_on: Severity | str = Severity.ERROR,
        *,
        select: Iterable[str] = (),
        ignore: Iterable[str] | Mapping[str, str] = (),
        verify: bool = True,
        loss: Callable[[Any, Any], torch.Tensor] | None = None,
    ) -> None:
        """`fail_on` is a severity, or "never"; the rest is as `peft_inspect.check` takes it.

        Raises:
            ValueError: there is no such severity.
        """
        self._fail_on = fail_on if fail_on == "never" else Severity(fail_on)
        self._judge: Mapping[str, Any] = {
            "select": select if isinstance(select, str) else tuple(select),
            "ignore": ignore,
            "verify": verify,
        }
        self._loss = loss
        self.report: Report | None = None

    def _check(
        self,
        model: torch.nn.Module,
        batch: Mapping[str, Any],
        optimizer: torch.optim.Optimizer | None,
        loss: Callable[[Any, Any], torch.Tensor] | None = None,
    ) -> None:
        """Check, keep the report, and tell what was found; `loss` is what is trained where the user named none.

        Where a runtime owns the step, a line in the log says that nothing was inspected, and the training goes on.

        Raises:
            FindingsError: something is at or above `fail_on`.
            InspectionError: the model could not be inspected.
        """
        from peft_inspect.structure.runtimes import owner_of_the_step

        if (reason := owner_of_the_step(model)) is not None:
            log.warning("peft-inspect: not inspected: %s", reason)
            return
        self.report = check(model, batch, loss=self._loss or loss, optimizer=optimizer, **self._judge)
        self.report.raise_for_findings(self._fail_on)
        log.log(logging.WARNING if self.report.findings else logging.INFO, "%s", self.report)
