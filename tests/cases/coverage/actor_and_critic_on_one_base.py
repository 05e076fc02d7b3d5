"""An actor and a critic from two calls of get_peft_model on one base: one set of adapter layers, steered from two sides."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI115"


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


class ActorCritic(torch.nn.Module):
    def __init__(self, actor_base, critic_base):
        super().__init__()
        self.actor = get_peft_model(actor_base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), adapter_name="actor")
        self.critic = get_peft_model(critic_base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), adapter_name="critic")


def broken():
    base = llama()
    return Example(ActorCritic(base, base))


def fixed():
    return Example(ActorCritic(llama(), llama()))
