"""The callback in real trainings of Lightning, where that is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import peft_inspect

lightning = pytest.importorskip("lightning", reason="pip install lightning")
from peft_inspect.integrations.lightning import PeftInspectCallback  # noqa: E402

# What Lightning warns about in its own code, or says of a tiny training, is not this project's.
pytestmark = pytest.mark.filterwarnings("ignore")
ROWS = torch.arange(8 * 12).reshape(8, 12) % 60


class Chat(lightning.LightningModule):
    """A fine-tune as it is written for Lightning: logs, a counter in a plain tensor, dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        base = LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2, bos_token_id=3, eos_token_id=1, pad_token_id=0))
        self.model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.1))
        self.seen = torch.zeros(())
        self.steps = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen += 1
        self.steps += 1
        loss = self.loss_of(batch)
        self.log("loss", loss, on_epoch=True)
        self.log_dict({"twice": 2 * loss})
        return loss

    def loss_of(self, batch: Any) -> torch.Tensor:
        return self.model(**batch).loss

    def trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.trained(), lr=1e-2)


class OnTuples(Chat):
    """Its batches are tuples, its step takes nothing else and returns a dict."""

    def training_step(self, batch: Any) -> Any:
        ids, labels = batch
        return {"loss": self.model(input_ids=ids, labels=labels).loss}


class Manual(Chat):
    """Its step does the backward itself, with two optimizers."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.steps += 1
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(self.loss_of(batch))
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(parameters, lr=0.1) for parameters in (self.trained(), self.model.get_base_model().model.norm.parameters())]


class WithoutGradients(Chat):
    """A fault that lies outside the model."""

    def loss_of(self, batch: Any) -> torch.Tensor:
        with torch.no_grad():
            hidden = self.model.get_base_model().model(batch["input_ids"]).last_hidden_state
        return self.model.get_output_embeddings()(hidden).square().mean() + 0 * self.trained()[0].sum()


class Frozen(Chat):
    """A helper freezes everything but the head, adapters included."""

    def __init__(self) -> None:
        super().__init__()
        self.model.requires_grad_(False)
        self.model.get_output_embeddings().weight.requires_grad_(True)


class FrozenManual(Manual, Frozen):
    """The same with manual optimization."""


def fit(module: Chat, *callbacks: PeftInspectCallback, **arguments: Any) -> Any:
    data = [(row, row) if isinstance(module, OnTuples) else {"input_ids": row, "labels": row} for row in ROWS]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    trainer = lightning.Trainer(accelerator="cpu", devices=1, callbacks=list(callbacks), **{"max_steps": 2, **quiet, **arguments})
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=2))
    return trainer


@pytest.mark.parametrize("kind", [Frozen, FrozenManual])
def test_a_training_with_dead_adapters_stops_with_the_cause_and_its_weights_as_they_were(kind: Any) -> None:
    module, callback = kind(), PeftInspectCallback()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(peft_inspect.FindingsError, match="PI302 frozen-after-wrapping"):
        fit(module, callback)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert callback.report.findings


def test_a_fault_of_the_training_step_itself_is_found_on_its_line() -> None:
    with pytest.raises(peft_inspect.FindingsError) as raised:
        fit(WithoutGradients(), PeftInspectCallback())
    assert "with torch.no_grad():" in str(raised.value)
    assert "PI303 no-grad-region" in str(raised.value)


@pytest.mark.parametrize("kind", [Chat, OnTuples, Manual])
def test_a_healthy_training_is_bit_for_bit_what_it_is_without_the_callback(kind: Any) -> None:
    """Dropout is on, so the random numbers must be as they were, too."""
    modules, logged = [], []
    for callbacks in ([], [callback := PeftInspectCallback()]):
        module = kind()
        trainer = fit(module, *callbacks, max_steps=-1, max_epochs=1)
        modules.append(module)
        logged.append(trainer.callback_metrics)
    without, checked = modules
    assert all(torch.equal(tensor, checked.state_dict()[name]) for name, tensor in without.state_dict().items())
    assert (without.steps, without.seen) == (checked.steps, checked.seen)
    assert logged[0] == logged[1]
    assert "log" not in vars(checked)
    assert callback.report.findings == ()


@pytest.mark.parametrize("arguments", [{"precision": "bf16-mixed"}, {"precision": "bf16-true"}, {"accumulate_grad_batches": 2}], ids=str)
def test_the_report_is_of_the_real_batch_and_the_real_optimizer(arguments: dict[str, Any]) -> None:
    fit(Chat(), callback := PeftInspectCallback(), **arguments)
    report = callback.report
    assert report.findings == ()
    assert report.trace.batch.inputs == {"input_ids": "int64[2, 12]", "labels": "int64[2, 12]"}
    assert next(outcome.status for outcome in report.outcomes if outcome.code == "PI317") == "clean"


def test_an_optimizer_that_misses_adapters_is_found() -> None:
    module = Manual()
    module.configure_optimizers = lambda: [torch.optim.SGD([parameter], lr=0.1) for parameter in module.trained()[:2]]
    fit(module, callback := PeftInspectCallback(fail_on="never"))
    assert [finding.code for finding in callback.report.findings] == ["PI317"]


class Reader(Chat):
    """Its step fetches the batches itself."""

    def training_step(self, dataloader_iter: Any) -> Any:
        return self.loss_of(next(dataloader_iter)[0])


class FrozenReader(Reader, Frozen):
    """The same, frozen."""


def test_a_step_that_reads_its_own_batches_is_watched_like_any_other() -> None:
    fit(Reader(), callback := PeftInspectCallback())
    assert callback.report.findings == ()
    with pytest.raises(peft_inspect.FindingsError, match="PI302 frozen-after-wrapping"):
        fit(FrozenReader(), PeftInspectCallback())


def test_a_training_that_fails_is_watched_no_longer() -> None:
    class Failing(Chat):
        def loss_of(self, batch: Any) -> torch.Tensor:
            super().loss_of(batch)
            raise ValueError("no such token")

    with pytest.raises(ValueError, match="no such token"):
        fit(Failing(), PeftInspectCallback())
    assert not torch.nn.modules.module._global_forward_pre_hooks
