"""Stock WavLM hands q_proj and v_proj weights to F.multi_head_attention_forward: LoRA on them never runs."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import WavLMConfig, WavLMForSequenceClassification

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*attention\.(q|v)_proj"
SOURCE_ENDS = "modeling_wavlm.py"
DEAD = 8
VERIFIED = True


def wavlm():
    torch.manual_seed(0)
    return WavLMForSequenceClassification(
        WavLMConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=(8, 8),
            conv_stride=(4, 2),
            conv_kernel=(8, 4),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            classifier_proj_size=8,
            mask_time_prob=0.0,
            layerdrop=0.0,
        )
    )


def example(target_modules):
    model = get_peft_model(wavlm(), LoraConfig(r=2, target_modules=target_modules))
    return Example(model, {"input_values": torch.randn(2, 400), "labels": torch.tensor([0, 1])})


def broken():
    return example(["q_proj", "v_proj"])


def fixed():
    return example(["intermediate_dense", "output_dense"])
