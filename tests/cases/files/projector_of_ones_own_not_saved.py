"""A projector of one's own inside the wrapped model trains beside the adapter, and is checked before the run is thrown away."""

from peft import LoraConfig, get_peft_model
from tiny import llama, saved, trained
from torch import nn

RULE, NAME = "PI406", "head-not-saved"
LAYERS = r"base_model\.model\.mm_projector\.[02]"
SEVERITY = "warning"


class Multimodal(nn.Module):
    def __init__(self):
        super().__init__()
        self.llm = llama()
        self.mm_projector = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16))
        self.config = self.llm.config

    def forward(self, features, **inputs):
        return self.llm(inputs_embeds=self.mm_projector(features), **inputs)


def broken(folder):
    model = trained(get_peft_model(Multimodal(), LoraConfig(target_modules=["q_proj", "v_proj"])))
    model.base_model.model.mm_projector.requires_grad_(True)
    return model, saved(model, folder)


def fixed(folder):
    config = LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["mm_projector"])
    model = trained(get_peft_model(Multimodal(), config))
    return model, saved(model, folder)
