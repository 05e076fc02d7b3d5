"""The encoder is loaded twice, once by the data pipeline and once for LoRA; the forward uses the pipeline's."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import T5Config, T5EncoderModel

from peft_inspect.rules import Example

RULE, NAME = "PI203", "unadapted-copy-called"
LAYERS = r"text_encoder\..*"
DEAD = 8
VERIFIED = None


def load_text_encoder():
    torch.manual_seed(0)
    return T5EncoderModel(T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))


class Pipeline:
    """Not a module: it only tokenises and encodes."""

    def __init__(self, encoder):
        self.encoder = encoder

    def encode(self, ids):
        return self.encoder(input_ids=ids).last_hidden_state  # <- cause


class TextToImage(nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.text_encoder = get_peft_model(load_text_encoder(), LoraConfig(r=2, target_modules=["q", "v"]))
        own = load_text_encoder().requires_grad_(False)
        self.pipeline = Pipeline(self.text_encoder if shared else own)
        self.denoiser = nn.Linear(16, 16)

    def forward(self, prompt_ids, noise):
        return nn.functional.mse_loss(self.denoiser(self.pipeline.encode(prompt_ids)), noise)


def batch():
    return {"prompt_ids": torch.tensor([[1, 2, 3]]), "noise": torch.randn(1, 3, 16)}


def broken():
    return Example(TextToImage(shared=False), batch())


def fixed():
    return Example(TextToImage(shared=True), batch())
