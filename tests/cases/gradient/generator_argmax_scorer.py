"""A generator's tokens are picked by argmax and scored by a second LoRA model: nothing flows back to the generator."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI306", "non-differentiable-step"
LAYERS = r"generator\..*"
DEAD = 8


def llama():
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    return get_peft_model(LlamaForCausalLM(config), LoraConfig(target_modules=["q_proj", "v_proj"]))


class Pipeline(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.generator = llama()
        self.scorer = llama()

    def forward(self, prompt):
        logits = self.generator(input_ids=prompt).logits
        answer = logits.argmax(dim=-1)  # <- cause
        score = self.scorer(input_ids=answer).logits[:, -1, 0]
        return {"loss": -score.mean()}


class StraightThrough(Pipeline):
    def forward(self, prompt):
        probabilities = self.generator(input_ids=prompt).logits.softmax(dim=-1)
        hard = nn.functional.one_hot(probabilities.argmax(dim=-1), 24).to(probabilities.dtype)
        soft = hard + probabilities - probabilities.detach()
        embedded = soft @ self.scorer.get_input_embeddings().weight
        return {"loss": -self.scorer(inputs_embeds=embedded).logits[:, -1, 0].mean()}


def broken():
    return Example(Pipeline(), {"prompt": torch.tensor([[1, 2, 3, 4]])})


def fixed():
    return Example(StraightThrough(), {"prompt": torch.tensor([[1, 2, 3, 4]])})
