"""An optimizer that is handed to a check takes one step: a copy of it does, on copies of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import peft_inspect
from peft_inspect.rules.examples import text_batch, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")

Optimizer = Callable[[Iterator[torch.nn.Parameter]], Any]


def adapted(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    return model.to(dtype)


def trained(model: Any) -> Iterator[torch.nn.Parameter]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def codes(model: Any, optimizer: Any) -> list[str]:
    report = peft_inspect.check(model, text_batch(), optimizer=optimizer, select=["PI317", "PI5"])
    return [finding.code for finding in report.findings]


@pytest.mark.parametrize(
    ("make", "dtype", "expected"),
    [
        (lambda weights: torch.optim.AdamW(weights, lr=0.0), torch.float32, ["PI502"]),
        (lambda weights: torch.optim.AdamW(weights, lr=1e-3), torch.float32, []),
        (lambda weights: torch.optim.SGD(weights, lr=1e-9), torch.bfloat16, ["PI501"]),
        (lambda weights: torch.optim.SGD(weights, lr=1.0), torch.bfloat16, []),
        (lambda weights: torch.optim.Adam(weights, lr=1e-8), torch.bfloat16, ["PI501"]),
        (torch.optim.LBFGS, torch.float32, []),  # wants a closure: nothing can be said of its step
    ],
    ids=["rate 0", "sound", "too small for bfloat16", "bfloat16", "Adam too small for bfloat16", "closure"],
)
def test_what_its_step_would_do_is_judged(make: Optimizer, dtype: torch.dtype, expected: list[str]) -> None:
    model = adapted(dtype)
    assert codes(model, make(trained(model))) == expected


def test_a_warm_up_from_0_is_no_fault() -> None:
    model = adapted()
    optimizer = torch.optim.AdamW(trained(model), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert optimizer.param_groups[0]["lr"] == 0
    assert codes(model, optimizer) == []
    assert schedule.last_epoch == 0


def test_neither_the_weights_nor_the_optimizer_have_moved() -> None:
    model = adapted()
    optimizer = torch.optim.AdamW(trained(model), lr=0.1)
    model(**text_batch()).loss.backward()
    optimizer.step()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    moments = [value.clone() for state in optimizer.state.values() for value in state.values()]
    peft_inspect.check(model, text_batch(), optimizer=optimizer)
    assert all(map(torch.equal, before, model.parameters()))
    assert all(map(torch.equal, moments, (value for state in optimizer.state.values() for value in state.values())))


class Unwilling(torch.optim.SGD):
    """An optimizer that nobody may copy."""

    def __deepcopy__(self, memo: object) -> Unwilling:
        raise TypeError("not to be copied")


def test_one_that_cannot_be_copied_is_said_nothing_of() -> None:
    model = adapted()
    report = peft_inspect.check(model, text_batch(), optimizer=Unwilling(trained(model), lr=0.0))
    assert not report.findings
    assert {outcome.status for outcome in report.outcomes if outcome.code == "PI502"} == {"skipped"}
