"""Fused experts of Mixtral through target_parameters: ParamWrappers nest at mlp.experts."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import MixtralConfig, MixtralForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    mixtral = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=4,
            num_experts_per_tok=2,
        )
    )
    lora = LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], lora_dropout=0.0
    )
    model = get_peft_model(mixtral, lora)
    ids = torch.tensor([[1, 9, 17, 25, 3, 11]])
    return Example(model, {"input_ids": ids, "labels": ids})
