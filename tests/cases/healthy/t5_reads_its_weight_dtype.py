"""T5's feed-forward asks `self.wo.weight.dtype` before it calls `self.wo`: reading a dtype bypasses nothing."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    config = T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=2, decoder_start_token_id=0)
    lora = LoraConfig(r=2, target_modules=["q", "k", "v", "o", "wi", "wo"], task_type="SEQ_2_SEQ_LM")
    model = get_peft_model(T5ForConditionalGeneration(config), lora)
    return Example(model, {"input_ids": torch.tensor([[4, 5, 6, 1]]), "labels": torch.tensor([[7, 8, 1]])})
