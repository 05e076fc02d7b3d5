"""Each trainer's file builds what that trainer would build: the same modules, ranks and scalings, on four sorts of architecture.

What a trainer builds is written down here a second time, by its own documentation and code, as a rule on one module of the base model.
"""

from __future__ import annotations

import json
import re

import pytest
import torch
from peft.tuners.lora import LoraLayer, ParamWrapper

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64}
TEXT = {**SIZES, "num_hidden_layers": 4}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
MODELS = {
    "dense": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **TEXT},
    "experts": {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        **TEXT,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
        "decoder_sparse_step": 1,
    },
    "vision": {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "image_token_index": 60,
        "image_seq_length": 4,
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": {"model_type": "clip_vision_model", "projection_dim": 16, **VISION},
    },
    "seq2seq": {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
        "vocab_size": 64,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
    },
}
LANGUAGE, VISION_TOWER, PROJECTOR = "model.language_model.", "model.vision_tower.", "model.multi_modal_projector."


def linear(module):
    return isinstance(module, torch.nn.Linear)


def name(path):
    return path.rpartition(".")[2]


def named(*names):
    """PEFT's own rule for a list: the last part of the path, whatever part of the model it is in."""
    return lambda kind, path, module: name(path) in names


FILES = {
    "axolotl": (
        "base_model: {model}\nadapter: lora\nlora_r: 4\nlora_alpha: 8\nlora_target_linear: true\nsequence_len: 8\n",
        lambda kind, path, module: linear(module) and name(path) != "lm_head",
    ),
    "axolotl, some layers": (
        (
            "base_model: {model}\nadapter: lora\nlora_r: 4\nlora_alpha: 8\nlora_target_linear: true\nlora_target_modules: [embed_tokens]\n"
            "peft_layers_to_transform: [1]\nsequence_len: 8\n"
        ),
        lambda kind, path, module: linear(module) and name(path) != "lm_head" and re.findall(r"\.(\d+)\.", path)[:1] == ["1"],
    ),
    "LLaMA-Factory": (
        "model_name_or_path: {model}\nfinetuning_type: lora\nlora_rank: 4\nlora_target: all\n",
        lambda kind, path, module: linear(module) and "lm_head" not in path and not path.startswith((VISION_TOWER, PROJECTOR)),
    ),
    "LLaMA-Factory, vision": (
        "model_name_or_path: {model}\nfinetuning_type: lora\nlora_rank: 4\nlora_target: {query},v_proj\nfreeze_vision_tower: false\n",
        named("q_proj", "v_proj", "q"),
    ),
    "LLaMA-Factory v1": (
        "model: {model}\nmodel_class: llm\npeft_config: {{name: lora, r: 4, lora_alpha: 8, lora_dropout: 0.0, target_modules: all}}\n",
        lambda kind, path, module: linear(module) and not any(t in path for t in ("lm_head", "output", "score", "classifier")),
    ),
    "TRL": (
        (
            "model_name_or_path: {model}\nuse_peft: true\nlora_r: 4\nlora_alpha: 8\nlora_dropout: 0.0\n"
            "lora_target_modules: [q_proj, v_proj, q, v]\n"
        ),
        named("q_proj", "v_proj", "q", "v"),
    ),
    "torchtune": (
        (
            "model: {{_component_: torchtune.models.llama3.lora_llama3_8b, lora_attn_modules: [q_proj, output_proj], "
            "apply_lora_to_mlp: true, "
            "lora_rank: 4, lora_alpha: 8}}\ncheckpointer: {{checkpoint_dir: {model}}}\n"
        ),
        lambda kind, path, module: (
            not path.startswith((VISION_TOWER, PROJECTOR))
            and (name(path) in ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "q", "o", "wi_0", "wi_1", "wo") or fused(path))
        ),
    ),
    "ms-swift": (
        "model: {model}\ntuner_type: lora\nlora_rank: 4\nlora_alpha: 8\nlora_dropout: 0.0\ntarget_modules: all-linear\n",
        lambda kind, path, module: linear(module) and "lm_head" not in path and (kind != "vision" or path.startswith(LANGUAGE)),
    ),
    "ms-swift, tower": (
        (
            "model: {model}\ntuner_type: lora\nlora_rank: 4\nlora_alpha: 8\nlora_dropout: 0.0\n"
            "target_modules: all-linear\nfreeze_vit: false\nfreeze_llm: true\n"
        ),
        lambda kind, path, module: linear(module) and "lm_head" not in path and (kind != "vision" or path.startswith(VISION_TOWER)),
    ),
    "unsloth": (
        (
            "model: {model}\ntraining: {{training_type: lora, gradient_checkpointing: none}}\n"
            "lora: {{lora_r: 4, lora_alpha: 8, target_modules: 'q_proj,v_proj,down_proj,q,v', finetune_vision_layers: false}}\n"
        ),
        lambda kind, path, module: (
            (name(path) in ("q_proj", "v_proj", "down_proj", "q", "v") and not path.startswith(VISION_TOWER))
            or (fused(path) and name(path) == "down_proj")
        ),
    ),
    "unsloth, vision": (
        (
            "model: {model}\ntraining: {{training_type: lora, gradient_checkpointing: none}}\n"
            "lora: {{lora_r: 4, lora_alpha: 8, target_modules: 'q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj,q', "
            "vision_all_linear: true, finetune_mlp_modules: true}}\n"
        ),
        lambda kind, path, module: (
            linear(module) and re.search(r"(vision|language).*(attn|mlp)", path) is not None
            if kind == "vision"
            else name(path) in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "q") or fused(path)
        ),
    ),
    "LitGPT": (
        (
            "checkpoint_dir: {model}\nlora_r: 4\nlora_alpha: 8\nlora_dropout: 0.0\nlora_query: true\n"
            "lora_value: false\nlora_mlp: true\nlora_head: true\n"
        ),
        lambda kind, path, module: (
            not path.startswith((VISION_TOWER, PROJECTOR))
            and (name(path) in ("q_proj", "gate_proj", "up_proj", "down_proj", "lm_head", "q", "wi_0", "wi_1", "wo") or fused(path))
        ),
    ),
    "NeMo Automodel": (
        (
            "model: {{pretrained_model_name_or_path: {model}}}\npeft:\n  _target_: nemo_automodel.components._peft.lora.PeftConfig\n"
            "  target_modules: ['*_proj', '*.q', '*.mlp.experts']\n  dim: 4\n  alpha: 8\n"
        ),
        lambda kind, path, module: (linear(module) and (path.endswith("_proj") or re.match(r".*..*.q$", path) is not None)) or fused(path),
    ),
    "NeMo Automodel, all but some": (
        (
            "model: {{pretrained_model_name_or_path: {model}}}\npeft:\n  _target_: nemo_automodel.components._peft.lora.PeftConfig\n"
            "  exclude_modules: ['*vision*', '*.v', '*lm_head*']\n  dim: 4\n  alpha: 8\n"
        ),
        lambda kind, path, module: linear(module) and "vision" not in path and not path.endswith(".v") and "lm_head" not in path,
    ),
    "verl": (
        (
            "actor_rollout_ref: {{model: {{path: {model}, lora_rank: 4, lora_alpha: 8, "
            "target_modules: [q_proj, q], exclude_modules: '.*vision.*'}}}}\n"
        ),
        lambda kind, path, module: name(path) in ("q_proj", "q") and "vision" not in path,
    ),
    "OpenRLHF": (
        "pretrain: {model}\nlora_rank: 4\nlora_alpha: 8\ntarget_modules: [k_proj, k]\nzero_stage: 2\n",
        named("k_proj", "k"),
    ),
    "MLX": (
        (
            "model: {model}\nfine_tune_type: lora\nnum_layers: 2\n"
            "lora_parameters: {{keys: [self_attn.q_proj, mlp.down_proj, layer.0.SelfAttention.q], rank: 4, scale: 2.0, dropout: 0.0}}\n"
        ),
        lambda kind, path, module: (
            (
                path.startswith(("model.layers.2.", "model.layers.3.", LANGUAGE + "layers.2.", LANGUAGE + "layers.3."))
                and path.endswith(("self_attn.q_proj", "mlp.down_proj"))
                and linear(module)
            )
            or (kind == "seq2seq" and path.startswith("encoder.block.") and path.endswith("layer.0.SelfAttention.q"))
        ),
    ),
    "PEFT": ("base_model: {model}\nr: 4\nlora_alpha: 8\ntarget_modules: [q_proj, v_proj, q, v]\n", named("q_proj", "v_proj", "q", "v")),
}


def fused(path):
    return re.search(r"\.experts\.(gate_up|down)_proj$", path) is not None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with a config for each sort of architecture."""
    root = tmp_path_factory.mktemp("models")
    for kind, config in MODELS.items():
        (root / kind).mkdir()
        (root / kind / "config.json").write_text(json.dumps(config))
    return root


def built(model):
    """Path of every adapted module or raw parameter → rank and scaling."""
    found = {}
    for path, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            bare = re.sub(r"\.base_layer", "", path)
            place = f"{bare}.{module.parameter_name}" if isinstance(module, ParamWrapper) else bare
            found[place] = (module.r["default"], module.scaling["default"])
    return found


def places(model):
    """Modules, and raw parameters of three dimensions, of a base model."""
    yield from model.named_modules()
    yield from ((path, parameter) for path, parameter in model.named_parameters() if parameter.ndim == 3)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("trainer", FILES)
def test_a_file_builds_what_its_trainer_would(load, folders, tmp_path, trainer, kind):
    text, adapted = FILES[trainer]
    file = tmp_path / "train.yaml"
    file.write_text(text.format(model=folders / kind, query="q" if kind == "seq2seq" else "q_proj"))
    expected = {path for path, module in places(load(str(folders / kind)).model) if path and adapted(kind, path, module)}
    assert expected, "the rule of this test reaches nothing"
    subject = load(lora=str(file))
    assert subject.source == str(folders / kind)
    doubled = trainer == "unsloth, vision" and kind == "experts"  # PEFT gives the fused gate and up projection the ranks of both
    assert built(subject.model) == {path: (8 if doubled and name(path) == "gate_up_proj" else 4, 2.0) for path in expected}
