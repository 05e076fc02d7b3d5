"""Both towers of Qwen2-Audio adapted with the names of one: the audio tower calls its output projection out_proj."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from peft_inspect.rules import Example

RULE = "PI104"
ALSO = ("PI103",)  # whether both towers are meant, the config does not say
MODULES = r".*\.audio_tower\..*\.out_proj"


def qwen2_audio():
    torch.manual_seed(0)
    audio = {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": 8,
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "max_source_positions": 10,
    }
    text = {
        "model_type": "qwen2",
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    return Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=63))


def broken():
    return Example(get_peft_model(qwen2_audio(), LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])))


def fixed():
    config = LoraConfig(r=4, target_modules=r".*(audio_tower|language_model).*\.(q_proj|k_proj|v_proj|o_proj|out_proj)")
    return Example(get_peft_model(qwen2_audio(), config))
