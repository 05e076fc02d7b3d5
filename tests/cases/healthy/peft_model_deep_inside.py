"""Only the language model inside a bigger module is a PeftModel; the frozen vision side runs under no_grad."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTModel

from peft_inspect.rules import Example


class Captioner(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        vit = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4)
        llama = LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
        )
        self.vision = ViTModel(vit).requires_grad_(False).eval()
        self.bridge = nn.Linear(16, 16)
        self.text = nn.ModuleDict({"lm": get_peft_model(LlamaForCausalLM(llama), LoraConfig(target_modules=["q_proj", "v_proj"]))})

    def forward(self, pixel_values, input_ids):
        with torch.no_grad():
            image = self.vision(pixel_values=pixel_values).last_hidden_state
        lm = self.text["lm"]
        tokens = lm.get_input_embeddings()(input_ids)
        states = torch.cat([self.bridge(image), tokens], dim=1)
        labels = torch.cat([input_ids.new_full(image.shape[:2], -100), input_ids], dim=1)
        return lm(inputs_embeds=states, labels=labels)


def healthy():
    return Example(Captioner(), {"pixel_values": torch.rand(1, 3, 8, 8), "input_ids": torch.tensor([[1, 2, 3]])})
