"""The projections of a dense Llama in the list, and the experts of Mixtral by their parameters: nothing is left out."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import MixtralConfig, MixtralForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    base = MixtralForCausalLM(MixtralConfig(vocab_size=64, num_local_experts=4, num_experts_per_tok=2, **shape))
    dense = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    model = get_peft_model(base, LoraConfig(r=2, target_modules=dense, target_parameters=experts))
    ids = torch.arange(2, 18).view(2, 8)
    return Example(model, {"input_ids": ids, "labels": ids})
