"""The callback in real trainings: it stops one whose adapters are dead, with the cause, and leaves a healthy one as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import peft_inspect
from peft_inspect.integrations import before_training
from peft_inspect.integrations.transformers import PeftInspectCallback

# What transformers, accelerate and TRL warn about in their own code is not this project's.
pytestmark = pytest.mark.filterwarnings("ignore")

REENTRANT, OTHER = ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": use}} for use in (True, False))
WAYS = [
    {"gradient_accumulation_steps": 2},
    {"fp16": True},
    {"bf16": True},
    {"gradient_checkpointing": True},
    OTHER,
    {**REENTRANT, "bf16": True, "gradient_accumulation_steps": 2},
]


def base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            bos_token_id=3,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def lora() -> LoraConfig:
    return LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.1)


def frozen(model: Any) -> Any:
    """A helper freezes everything but the head, adapters included."""
    model.requires_grad_(False)
    model.get_output_embeddings().weight.requires_grad_(True)
    return model


def trainer(model: Any, folder: Path, *callbacks: PeftInspectCallback, **arguments: Any) -> Trainer:
    rows = torch.arange(8 * 12).reshape(8, 12) % 60
    data = [{"input_ids": row, "labels": row.clone()} for row in rows]
    settings = {
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": [],
    }
    return Trainer(model, TrainingArguments(str(folder), **{**settings, **arguments}), train_dataset=data, callbacks=list(callbacks))


def test_a_training_with_dead_adapters_stops_before_its_first_step_with_the_cause(tmp_path: Path) -> None:
    model = frozen(get_peft_model(base(), lora()))
    head = model.get_output_embeddings().weight.clone()
    with pytest.raises(peft_inspect.FindingsError, match="PI302 frozen-after-wrapping"):
        trainer(model, tmp_path, PeftInspectCallback()).train()
    assert torch.equal(head, model.get_output_embeddings().weight)


def test_a_healthy_training_is_bit_for_bit_what_it_is_without_the_callback(tmp_path: Path) -> None:
    """Dropout is on, so the random numbers must be as they were, too."""
    states, hooks = [], []
    for callbacks in ([], [PeftInspectCallback()]):
        model = get_peft_model(base(), lora())
        trainer(model, tmp_path, *callbacks).train()
        states.append(model.state_dict())
        hooks.append(sum(len(module._forward_pre_hooks) for module in model.modules()))
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert hooks == [0, 0]


@pytest.mark.parametrize("arguments", WAYS, ids=str)
def test_the_report_is_of_the_real_batch_and_the_real_optimizer(tmp_path: Path, arguments: dict[str, Any]) -> None:
    callback = PeftInspectCallback()
    trainer(get_peft_model(base(), lora()), tmp_path, callback, **arguments).train()
    assert_healthy(callback)


@pytest.mark.parametrize("arguments", WAYS, ids=str)
def test_dead_adapters_are_found_in_every_way_of_training(tmp_path: Path, arguments: dict[str, Any]) -> None:
    callback = PeftInspectCallback()
    with pytest.raises(peft_inspect.FindingsError, match="PI302 frozen-after-wrapping"):
        trainer(frozen(get_peft_model(base(), lora())), tmp_path, callback, **arguments).train()
    assert callback.report is not None
    assert callback.report.at_or_above("error")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_base_in_half_precision_trains_in_silence(tmp_path: Path, dtype: torch.dtype) -> None:
    callback = PeftInspectCallback()
    trainer(get_peft_model(base().to(dtype), lora()), tmp_path, callback).train()
    assert_healthy(callback)


def assert_healthy(callback: PeftInspectCallback) -> None:
    report = callback.report
    assert report is not None
    assert report.findings == ()
    assert report.trace is not None
    assert report.trace.batch.inputs["input_ids"] == "int64[2, 12]"
    assert next(outcome.status for outcome in report.outcomes if outcome.code == "PI317") == "clean"


def test_a_severity_that_does_not_exist_is_refused_before_the_training() -> None:
    with pytest.raises(ValueError, match="eror"):
        PeftInspectCallback(fail_on="eror")


def test_the_optimizer_that_misses_the_adapters_is_found(tmp_path: Path) -> None:
    model = base()
    optimizer = torch.optim.SGD([model.lm_head.weight], lr=0.1)
    wrapped = get_peft_model(model, lora())
    training = trainer(wrapped, tmp_path, callback := PeftInspectCallback(fail_on="never"))
    training.optimizer = optimizer
    training.train()
    assert callback.report is not None
    assert "PI317" in {finding.code for finding in callback.report.findings}


def test_never_only_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = PeftInspectCallback(fail_on="never", verify=False)
    trainer(frozen(get_peft_model(base(), lora())), tmp_path, callback).train()
    assert "PI302" in caplog.text
    assert callback.report is not None


def test_ones_own_loop_in_one_call() -> None:
    ids = torch.arange(8).unsqueeze(0)
    model = get_peft_model(base(), lora())
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
    report = before_training(model, {"input_ids": ids, "labels": ids}, optimizer=optimizer)
    assert report.findings == ()
    with pytest.raises(peft_inspect.FindingsError, match="PI302"):
        before_training(frozen(model), {"input_ids": ids, "labels": ids}, verify=False)
