"""all-linear on GPT-OSS reaches attention and the router's neighbours, and none of the fused experts."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import GptOssConfig, GptOssForCausalLM

from peft_inspect.rules import Example

RULE = "PI105"
MODULES = r".*\.layers\.\d+\.mlp\.experts"


def gpt_oss():
    torch.manual_seed(0)
    return GptOssForCausalLM(
        GptOssConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            num_local_experts=4,
            num_experts_per_tok=2,
            pad_token_id=0,
        )
    )


def broken():
    return Example(get_peft_model(gpt_oss(), LoraConfig(r=4, target_modules="all-linear")))


def fixed():
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    return Example(get_peft_model(gpt_oss(), LoraConfig(r=4, target_modules="all-linear", target_parameters=experts)))
