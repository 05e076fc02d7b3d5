"""A copy of the starting adapter is kept as the reference policy; this step does not use it."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

FIXED_DEAD = 8


def with_reference(model):
    model.add_adapter("ref", model.peft_config["default"])
    for name, parameter in list(model.named_parameters()):
        if ".default." in name:
            reference = model.get_parameter(name.replace(".default.", ".ref."))
            reference.data.copy_(parameter.data)
            reference.requires_grad = False
    return model


def healthy():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    model = with_reference(get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])))
    ids = torch.tensor([[7, 7, 3, 1]])
    return Example(model, {"input_ids": ids, "labels": ids})
