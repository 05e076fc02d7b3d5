"""Second SFT round from a saved adapter: from_pretrained loads for inference unless told otherwise."""

import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI301", "loaded-for-inference"
LAYERS = r".*(q_proj|v_proj)"
DEAD = 8
VERIFIED = True


def base_model():
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2))


def first_round(folder):
    model = get_peft_model(base_model(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn_init = torch.nn.init
            nn_init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)


def second_round(**options):
    with tempfile.TemporaryDirectory() as folder:
        first_round(folder)
        return PeftModel.from_pretrained(base_model(), folder, **options).train()


def batch():
    ids = torch.tensor([[2, 7, 1, 8]])
    return {"input_ids": ids, "labels": ids}


def broken():
    return Example(second_round(), batch())


def fixed():
    return Example(second_round(is_trainable=True), batch())
