"""DeepSeek-V3 with gate/up/down_proj: PEFT rewrites the names for the fused experts, and the dense and shared layers go without."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from peft_inspect.rules import Example

RULE = "PI105"
MODULES = r".*\.layers\.(0\.mlp|[12]\.mlp\.shared_experts)\.(gate|up|down)_proj"


def deepseek():
    torch.manual_seed(0)
    return DeepseekV3ForCausalLM(
        DeepseekV3Config(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            moe_intermediate_size=16,
            num_hidden_layers=3,
            first_k_dense_replace=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            n_routed_experts=8,
            num_experts_per_tok=2,
            n_group=2,
            topk_group=1,
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_rope_head_dim=4,
            qk_nope_head_dim=4,
            v_head_dim=8,
        )
    )


def broken():
    return Example(get_peft_model(deepseek(), LoraConfig(r=4, target_modules=["gate_proj", "up_proj", "down_proj"])))


def fixed():
    names = ["experts.gate_up_proj", "experts.down_proj", "gate_proj.weight", "up_proj.weight", "down_proj.weight"]
    return Example(get_peft_model(deepseek(), LoraConfig(r=4, target_modules=["o_proj"], target_parameters=names)))
