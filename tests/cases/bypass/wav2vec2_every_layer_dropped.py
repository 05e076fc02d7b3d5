"""LayerDrop of 1.0, copied from a sweep: no layer of the wav2vec2 encoder ever runs in training."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from peft_inspect.rules import Example

RULE, NAME = "PI208", "branch-not-executed"
LAYERS = r".*encoder\.layers\.\d\.attention\.(q|v)_proj"
DEAD = 8


def wav2vec2(layerdrop):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 12}
    stem = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2, "feat_extract_norm": "layer"}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0}
    base = Wav2Vec2ForCTC(Wav2Vec2Config(layerdrop=layerdrop, **shape, **stem, **positions))
    return get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"])).train()


def batch():
    return {"input_values": torch.randn(1, 400), "labels": torch.tensor([[3, 4, 5]])}


def broken():
    return Example(wav2vec2(layerdrop=1.0), batch())


def fixed():
    return Example(wav2vec2(layerdrop=0.0), batch())
