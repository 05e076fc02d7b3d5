"""A reference to a container, taken before the wrapping, sees the LoRA layers: PEFT swaps Linears in place.

The original model object is trained instead of the PeftModel, too.
"""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    backbone, head = model.model, model.lm_head
    lora_model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"]))
    assert lora_model.get_base_model() is model

    def loss(trained, batch):
        hidden = backbone(input_ids=batch["input_ids"]).last_hidden_state
        return torch.nn.functional.cross_entropy(head(hidden)[0, :-1], batch["input_ids"][0, 1:])

    return Example(model, {"input_ids": torch.tensor([[1, 2, 3, 4]])}, loss)
