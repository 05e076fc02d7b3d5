"""The usual attention list on Nemotron-H: most blocks are mamba mixers, whose projections have other names."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import NemotronHConfig, NemotronHForCausalLM

from peft_inspect.rules import Example

RULE = "PI104"
MODULES = r".*\.layers\.(0|2)\.mixer\.(in_proj|out_proj)"


def nemotron_h():
    torch.manual_seed(0)
    return NemotronHForCausalLM(
        NemotronHConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            layers_block_type=["mamba", "mlp", "mamba", "attention"],
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            mamba_num_heads=4,
            mamba_head_dim=8,
            ssm_state_size=4,
            n_groups=1,
            chunk_size=4,
        )
    )


ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def broken():
    return Example(get_peft_model(nemotron_h(), LoraConfig(r=4, target_modules=ATTENTION)))


def fixed():
    return Example(get_peft_model(nemotron_h(), LoraConfig(r=4, target_modules=[*ATTENTION, "in_proj"])))
