"""A Qwen2-VL-like model puts image features among the token embeddings, and detaches them to save memory."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, Qwen2Config, Qwen2ForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*\.visual\..*"
DEAD = 8
VERIFIED = True

IMAGE = 30


class VisionLanguage(nn.Module):
    def __init__(self, detach):
        super().__init__()
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        self.visual = CLIPVisionModel(CLIPVisionConfig(image_size=8, patch_size=4, **shape))
        self.language = Qwen2ForCausalLM(Qwen2Config(vocab_size=32, num_key_value_heads=2, **shape))
        self.detach = detach

    def forward(self, input_ids, pixel_values, labels):
        embeds = self.language.get_input_embeddings()(input_ids)
        features = self.visual(pixel_values).last_hidden_state[:, 1:].flatten(0, 1)
        mask = (input_ids == IMAGE).unsqueeze(-1).expand_as(embeds)
        if self.detach:
            features = features.detach()  # <- cause
        embeds = embeds.masked_scatter(mask, features)
        return self.language(inputs_embeds=embeds, labels=labels)


def program(detach):
    model = get_peft_model(VisionLanguage(detach), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    ids = torch.tensor([[1, IMAGE, IMAGE, IMAGE, IMAGE, 7, 8]])
    return Example(model, {"input_ids": ids, "pixel_values": torch.rand(1, 3, 8, 8), "labels": ids})


def broken():
    return program(detach=True)


def fixed():
    return program(detach=False)
