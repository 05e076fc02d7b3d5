"""On a GPU with its kernels, Mamba reads `x_proj.weight` itself; the path taken on a CPU does not."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import MambaConfig, MambaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI209", "weight-read-in-source"
LAYERS = r".*mixer\.x_proj"
SOURCE_ENDS = "modeling_mamba.py"
DEAD = 0


def mamba(targets):
    torch.manual_seed(0)
    base = MambaForCausalLM(
        MambaConfig(vocab_size=32, hidden_size=16, state_size=4, num_hidden_layers=2, time_step_rank=4, bos_token_id=0, eos_token_id=0)
    )
    return get_peft_model(base, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))


batch = {"input_ids": torch.tensor([[1, 2, 3, 4]]), "labels": torch.tensor([[1, 2, 3, 4]])}


def broken():
    return Example(mamba(["in_proj", "x_proj"]), batch)


def fixed():
    return Example(mamba(["in_proj"]), batch)
