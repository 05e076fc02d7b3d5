"""The loss lives in a library of the team, and takes the logits out to NumPy and back."""

import importlib.util
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*(query|value)"
DEAD = 8
SOURCE_ENDS = "team_losses.py"

LOSSES = """
import torch

def smoothed(model, batch):
    logits = model(input_ids=batch["input_ids"]).logits
    weight = torch.ones(2, requires_grad=True)
    return torch.nn.functional.cross_entropy(torch.from_numpy(logits.detach().numpy()) * weight, batch["labels"])

def kept(model, batch):
    logits = model(input_ids=batch["input_ids"]).logits
    return torch.nn.functional.cross_entropy(logits, batch["labels"], label_smoothing=0.1)
"""


def team_losses():
    path = Path(tempfile.mkdtemp()) / "team_losses.py"
    path.write_text(LOSSES)
    spec = importlib.util.spec_from_file_location("team_losses", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classifier():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    lora = LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS")
    return get_peft_model(BertForSequenceClassification(config), lora).train()


def batch():
    return {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]), "labels": torch.tensor([0, 1])}


def broken():
    return Example(classifier(), batch(), team_losses().smoothed)


def fixed():
    return Example(classifier(), batch(), team_losses().kept)
