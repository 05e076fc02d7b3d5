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
from tests.versions import require

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


def trainer(model: Any, folder: Path, *callbacks: PeftInspectCallback, kind: Any = Trainer, **arguments: Any) -> Any:
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
    return kind(model, TrainingArguments(str(folder), **{**settings, **arguments}), train_dataset=data, callbacks=list(callbacks))


def test_a_training_with_dead_adapters_stops_with_the_cause_and_its_weights_as_they_were(tmp_path: Path) -> None:
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
    if arguments.get("gradient_checkpointing"):
        require("transformers", "5.0", "checkpoints by reentry and leaves the inputs of a PeftModel without gradients: this is a fault")
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


class Own(Trainer):
    """What people do in a compute_loss of their own: take the labels out, keep numbers, compute the loss from the logits."""

    seen = 0

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        labels = inputs.pop("labels")
        self.seen += 1
        vars(self).setdefault("losses", []).append(self.seen)
        loss = self.trained(torch.nn.functional.cross_entropy(model(**inputs).logits.flatten(0, 1), labels.flatten()))
        return (loss, None) if return_outputs else loss

    def trained(self, loss: torch.Tensor) -> torch.Tensor:
        return loss


class Detaching(Own):
    """The fault lies in the loss, where the model alone cannot show it."""

    def trained(self, loss: torch.Tensor) -> torch.Tensor:
        return loss.detach().requires_grad_()


class Late(Own):
    """The first batches train nothing, as a group of completions with equal rewards does."""

    healthy_from = 2

    def trained(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * float(self.state.global_step >= self.healthy_from)


class Never(Late):
    """No batch ever does."""

    healthy_from = 100


class Stepping(Trainer):
    """A step that does without compute_loss."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        loss = model.train()(**inputs).loss
        self.accelerator.backward(loss)
        return loss.detach()


@pytest.mark.parametrize("kind", [Own, Stepping])
def test_a_loss_of_ones_own_is_what_is_checked_and_leaves_no_trace(tmp_path: Path, kind: type[Trainer]) -> None:
    left = []
    for callbacks in ([], [callback := PeftInspectCallback()]):
        training = trainer(get_peft_model(base(), lora()), tmp_path, *callbacks, kind=kind)
        training.train()
        left.append((training.state.log_history[-1]["train_loss"], getattr(training, "losses", None), "compute_loss" in vars(training)))
    assert left[0] == left[1]
    assert_healthy(callback)
    with pytest.raises(peft_inspect.FindingsError, match="PI302 frozen-after-wrapping"):
        trainer(frozen(get_peft_model(base(), lora())), tmp_path, PeftInspectCallback(verify=False), kind=kind).train()


def test_a_fault_in_the_loss_is_found_on_its_line(tmp_path: Path) -> None:
    with pytest.raises(peft_inspect.FindingsError, match="PI305 detached-activation") as raised:
        trainer(get_peft_model(base(), lora()), tmp_path, PeftInspectCallback(), kind=Detaching).train()
    assert "return loss.detach().requires_grad_()" in str(raised.value)


def test_batches_without_any_gradient_are_waited_for(tmp_path: Path) -> None:
    training = trainer(get_peft_model(base(), lora()), tmp_path, callback := PeftInspectCallback(), kind=Late, max_steps=4)
    training.train()
    assert_healthy(callback)
    assert training.losses == [1, 2, 3, 4]
    with pytest.raises(peft_inspect.FindingsError, match="PI310 zero-gradient"):
        trainer(get_peft_model(base(), lora()), tmp_path, PeftInspectCallback(), kind=Never).train()


def test_a_training_in_which_nothing_was_checked_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training = trainer(get_peft_model(base(), lora()), tmp_path, PeftInspectCallback(), max_steps=0, num_train_epochs=0)
    training.train()
    assert "checked nothing" in caplog.text
    assert "compute_loss" not in vars(training)
    assert not training.model._forward_pre_hooks


def test_a_training_that_fails_before_its_first_step_is_checked_when_it_is_started_again(tmp_path: Path) -> None:
    training = trainer(get_peft_model(base(), lora()), tmp_path, callback := PeftInspectCallback())
    collate, training.data_collator = training.data_collator, None
    with pytest.raises(TypeError):
        training.train()
    training.data_collator = collate
    training.train()
    assert_healthy(callback)


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


def test_the_fix_is_tried_in_the_next_step_of_the_training(tmp_path: Path) -> None:
    training = trainer(frozen(get_peft_model(base(), lora())), tmp_path, callback := PeftInspectCallback(), max_steps=8)
    before = [parameter.clone() for parameter in training.model.parameters()]
    with pytest.raises(peft_inspect.FindingsError, match="verified in step 2: 8/8 parameters train"):
        training.train()
    assert callback.report is not None
    assert callback.report.findings[0].fix_verified
    assert all(torch.equal(one, other) for one, other in zip(before, training.model.parameters(), strict=True))
    assert all(not parameter.requires_grad for name, parameter in training.model.named_parameters() if "lora_" in name)


def test_what_is_trained_after_a_stopped_or_a_failed_training_is_none_of_it(tmp_path: Path) -> None:
    """No callback is told that an exception ended its training."""
    stopped = trainer(frozen(get_peft_model(base(), lora())), tmp_path, PeftInspectCallback(verify=False))
    with pytest.raises(peft_inspect.FindingsError):
        stopped.train()
    failed = trainer(get_peft_model(base(), lora()), tmp_path, callback := PeftInspectCallback(), kind=Own)
    failed.trained = lambda loss: loss.no_such_thing
    with pytest.raises(AttributeError):
        failed.train()
    ids = torch.arange(8).unsqueeze(0)
    for training in (stopped, failed):
        training.model(input_ids=ids, labels=ids).loss.backward()
        torch.optim.SGD(training.model.parameters(), lr=0.1).step()
    assert callback.report is None
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_two_watches_at_once_both_answer(tmp_path: Path) -> None:
    with peft_inspect.watch() as watched:
        trainer(get_peft_model(base(), lora()), tmp_path, callback := PeftInspectCallback()).train()
    assert_healthy(callback)
    assert watched.report is not None
    assert watched.report.findings == ()
    assert not torch.nn.modules.module._global_forward_pre_hooks


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
