"""Tiny models and batches for the examples of the rules. Torch is imported only when an example runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from peft_inspect.rules.rule import Example

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def tiny_llama(**fields: Any) -> PreTrainedModel:
    """A Llama of two layers and width 16, random weights, in train mode; `fields` override its config."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**shape, **fields})).train()


def on_two_layers(forward: Callable[[Any, torch.Tensor], torch.Tensor], before_wrapping: Callable[[Any], None] = lambda _: None) -> Example:
    """Two linear layers with adapters, `inner` and `out`; `forward(model, x)` is what the model runs, on x of shape [2, 8]."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class TwoLayers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)
            self.out = nn.Linear(8, 4)
            before_wrapping(self)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return forward(self, x)

    return Example(get_peft_model(TwoLayers(), LoraConfig(target_modules=["inner", "out"])), {"x": torch.randn(2, 8)}, squared_output)


def squared_output(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """A loss for models that return one tensor and no loss: a scalar."""
    squares: torch.Tensor = model(**batch).square().mean()
    return squares


def text_batch() -> dict[str, torch.Tensor]:
    """Eight token ids and their labels: two int64 tensors of shape [1, 8]."""
    import torch

    ids = torch.arange(1, 9).unsqueeze(0)
    return {"input_ids": ids, "labels": ids.clone()}


def tiny_classifier() -> PreTrainedModel:
    """A Llama as in `tiny_llama`, with a classification head of two labels that is called `score`."""
    import torch
    from transformers import LlamaForSequenceClassification

    config = tiny_llama(pad_token_id=0, num_labels=2).config
    torch.manual_seed(0)
    return LlamaForSequenceClassification(config).train()
