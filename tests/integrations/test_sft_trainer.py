"""The callback under TRL's SFTTrainer, where that is installed: it wraps, packs and calls the model in ways of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

import peft_inspect
from peft_inspect.integrations.transformers import PeftInspectCallback

trl = pytest.importorskip("trl", reason="pip install trl")
datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = [f"w{index}" for index in range(60)]


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["<pad>", "<eos>", "<unk>", "<bos>"]
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(special + WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", bos_token="<bos>")


def sft(folder: Path, callback: TrainerCallback, **arguments: Any) -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2, bos_token_id=3, eos_token_id=1, pad_token_id=0))
    settings = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": [],
    }
    return trl.SFTTrainer(
        model,
        args=trl.SFTConfig(str(folder), **{**settings, **arguments}),
        train_dataset=datasets.Dataset.from_dict({"text": [" ".join(WORDS[start : start + 8]) for start in range(16)]}),
        processing_class=tokenizer(),
        peft_config=LoraConfig(target_modules=["q_proj", "v_proj"]),
        callbacks=[callback],
    )


WAYS = [
    {},
    {"gradient_checkpointing": False, "bf16": False, "fp16": True},
    {"packing": True, "max_length": 16},
    {"bf16": True, "gradient_accumulation_steps": 2, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
    {"bf16": False, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
]


@pytest.mark.parametrize("arguments", WAYS, ids=str)
def test_a_healthy_training_passes(tmp_path: Path, arguments: dict[str, Any]) -> None:
    callback = PeftInspectCallback()
    sft(tmp_path, callback, **arguments).train()
    assert callback.report is not None
    assert callback.report.findings == ()


def test_the_logs_are_those_of_the_training_alone(tmp_path: Path) -> None:
    """TRL counts tokens and keeps metrics while it computes the loss."""
    logs = []
    for callback in (PeftInspectCallback(), TrainerCallback()):
        training = sft(tmp_path, callback, logging_steps=1, max_steps=2)
        training.train()
        logs.append(
            [{name: value for name, value in log.items() if "loss" in name or "num_tokens" in name} for log in training.state.log_history]
        )
    assert logs[0] == logs[1]
    assert logs[0][0]["num_tokens"] > 0


@pytest.mark.parametrize("arguments", WAYS, ids=str)
def test_a_training_with_dead_adapters_stops_with_the_cause(tmp_path: Path, arguments: dict[str, Any]) -> None:
    training = sft(tmp_path, PeftInspectCallback(verify=False), **arguments)
    training.model.requires_grad_(False)
    training.model.get_output_embeddings().weight.requires_grad_(True)
    with pytest.raises(peft_inspect.FindingsError, match="PI302 frozen-after-wrapping"):
        training.train()
