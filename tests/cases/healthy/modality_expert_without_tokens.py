"""A feed-forward network for the tokens of images beside the one for text: this batch has no image, and the other one got nothing."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class TwoExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(16, 8)
        self.text_mlp, self.image_mlp, self.head = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, input_ids, is_image, labels):
        hidden = self.tokens(input_ids)
        mixed = torch.zeros_like(hidden)
        mixed[is_image] = self.image_mlp(hidden[is_image])
        mixed[~is_image] = self.text_mlp(hidden[~is_image])
        return {"loss": nn.functional.cross_entropy(self.head(hidden + mixed).flatten(0, 1), labels.flatten())}


def healthy():
    torch.manual_seed(0)
    model = get_peft_model(TwoExperts(), LoraConfig(r=2, target_modules=["text_mlp", "image_mlp", "head"]))
    ids = torch.arange(8).view(2, 4)
    return Example(model, {"input_ids": ids, "is_image": torch.zeros(2, 4, dtype=torch.bool), "labels": ids % 8})
