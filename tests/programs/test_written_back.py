"""What the optimizer moved is still there when the model runs again, or something has put the old values back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import peft_inspect
from peft_inspect.rules.examples import text_batch, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")

AfterStep = Callable[[], None]


def adapter_of(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def averaged_with(decay: float, *, written_back: bool) -> Callable[[Any], AfterStep]:
    def prepare(model: Any) -> AfterStep:
        average = {name: parameter.detach().clone() for name, parameter in adapter_of(model).items()}

        @torch.no_grad()
        def after_step() -> None:
            for name, parameter in adapter_of(model).items():
                average[name].lerp_(parameter, 1 - decay)
                if written_back:
                    parameter.copy_(average[name])

        return after_step

    return prepare


def loaded_anew(model: Any) -> AfterStep:
    state = copy.deepcopy(model.state_dict())
    return lambda: model.load_state_dict(state)


def wiped_in_the_forward(model: Any) -> AfterStep:
    for name, module in model.named_modules():
        if name.endswith("lora_B.default"):
            module.register_forward_pre_hook(wipe)
    return lambda: None


def wipe(module: Any, _args: object) -> None:
    module.weight.data.zero_()


def swapped_for_an_evaluation(model: Any) -> AfterStep:
    first = copy.deepcopy(model.state_dict())

    @torch.no_grad()
    def after_step() -> None:
        trained = copy.deepcopy(model.state_dict())
        model.load_state_dict(first)
        model(**text_batch())
        model.load_state_dict(trained)

    return after_step


def codes(prepare: Callable[[Any], AfterStep]) -> list[str]:
    torch.manual_seed(0)
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.AdamW(adapter_of(model).values(), lr=1e-2)
    after_step = prepare(model)
    with peft_inspect.watch(fail_on="never") as watching:
        for _ in range(3):
            model(**text_batch()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            after_step()
    assert watching.report is not None
    return [finding.code for finding in watching.report.findings]


@pytest.mark.parametrize(
    "prepare", [averaged_with(1.0, written_back=True), loaded_anew, wiped_in_the_forward], ids=["average", "state", "hook"]
)
def test_a_step_that_is_undone_is_no_update(prepare: Callable[[Any], AfterStep]) -> None:
    assert codes(prepare) == ["PI502"]


@pytest.mark.parametrize(
    "prepare",
    [averaged_with(0.5, written_back=True), averaged_with(1.0, written_back=False), swapped_for_an_evaluation],
    ids=["half of the way", "beside the model", "swapped for an evaluation"],
)
def test_a_step_that_leaves_its_trace_is_sound(prepare: Callable[[Any], AfterStep]) -> None:
    assert codes(prepare) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_a_forward_that_fails_and_is_tried_again_changes_nothing() -> None:
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.AdamW(adapter_of(model).values(), lr=1e-2)
    failing = model.base_model.model.model.norm.register_forward_pre_hook(out_of_memory)
    with peft_inspect.watch(fail_on="never") as watching:
        with pytest.raises(torch.OutOfMemoryError):
            model(**text_batch())
        failing.remove()
        for _ in range(2):
            model(**text_batch()).loss.backward()
            optimizer.step()
    assert watching.report is not None
    assert not watching.report.findings


def out_of_memory(_module: object, _args: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")
