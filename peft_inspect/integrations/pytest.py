"""The pytest plugin: a fixture that holds a model to training its adapters. Collecting tests imports neither torch nor the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

    from peft_inspect.api import Report

__all__ = ["assert_adapters_train"]


def assert_adapters_train(
    model: torch.nn.Module,
    batch: Mapping[str, Any] | None = None,
    *,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    fail_on: str = "error",
    **judge: Any,
) -> Report:
    """Assert that nothing at or above `fail_on` keeps the adapters from training. The model is left as it was.

    Takes what `peft_inspect.check` takes; without a batch one is made from the model's signature and config.

    Raises:
        AssertionError: with the text report as its message.
        InspectionError: the model could not be inspected.
    """
    __tracebackhide__ = True
    from peft_inspect.api import check

    report = check(model, batch, loss=loss, optimizer=optimizer, **judge)
    if report.at_or_above(fail_on):
        raise AssertionError(f"\n{report}")
    return report


@pytest.fixture(name="assert_adapters_train")
def _assert_adapters_train() -> Callable[..., Report]:
    """`assert_adapters_train(model, batch)`: fails, with the causes, when the model's adapters would not train."""
    return assert_adapters_train
