"""The experts' raw parameters were adapted, and a hand or a tool took `target_parameters` out of the config."""

from peft import LoraConfig, get_peft_model
from tiny import saved, trained
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

RULE, NAME = "PI401", "adapter-keys-not-loaded"
LAYERS = r"base_model\.model\.model\.layers\.\d\.mlp\.experts"
FIX = "set target_parameters=['mlp.experts.gate_up_proj', 'mlp.experts.down_proj'] in adapter_config.json"
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def adapted(parameters):
    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "num_key_value_heads": 2, "head_dim": 8}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, **experts))
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], target_parameters=parameters))


def broken(folder):
    saved(trained(adapted(EXPERTS)), folder)
    return adapted(None), folder


def fixed(folder):
    model = trained(adapted(EXPERTS))
    return model, saved(model, folder)
