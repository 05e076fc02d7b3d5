"""A projector of a subclass's own, left frozen by the wrapping, then unfrozen by hand as the fix."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI113"
MODULES = r".*\.speech_projector"


def llama(**fields):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**shape, **fields}))


class SpeechLlama(LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.speech_projector = torch.nn.Linear(8, config.hidden_size)


def wrapped():
    torch.manual_seed(0)
    model = SpeechLlama(llama().config)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))


def broken():
    return Example(wrapped())


def fixed():
    model = wrapped()
    model.base_model.model.speech_projector.requires_grad_(True)
    return Example(model)
