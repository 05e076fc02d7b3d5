"""The gather helper gives an empty dict on this rank, and save_pretrained writes it: a valid file with no tensors."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, trained

RULE, NAME = "PI404", "empty-adapter-file"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.(q|v)_proj"


def gathered(model, rank):
    return {} if rank else model.state_dict()


def save_from(rank, folder):
    model = trained(get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"])))
    model.save_pretrained(folder, state_dict=gathered(model, rank))
    return PeftModel.from_pretrained(llama(), folder), folder


def broken(folder):
    return save_from(1, folder)


def fixed(folder):
    return save_from(0, folder)
