"""A DETR-like detector: queries are matched to objects in NumPy, from detached costs; only the indices come back."""

import itertools

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


def assignment(cost):
    columns = range(cost.shape[1])
    best = min(
        itertools.permutations(range(cost.shape[0]), cost.shape[1]),
        key=lambda rows: sum(cost[r, c] for r, c in zip(rows, columns, strict=True)),
    )
    return np.array(best), np.array(columns)


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.queries = nn.Parameter(torch.randn(4, 8))
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2)
        self.classes = nn.Linear(8, 3)
        self.boxes = nn.Linear(8, 4)

    def match(self, boxes, targets):
        with torch.no_grad():
            cost = torch.cdist(boxes, targets, p=1)
        rows, columns = assignment(cost.cpu().numpy())
        return torch.as_tensor(rows), torch.as_tensor(columns)

    def forward(self, memory, labels, targets):
        hidden = self.decoder(self.queries.unsqueeze(0), memory)[0]
        boxes, logits = self.boxes(hidden).sigmoid(), self.classes(hidden)
        rows, columns = self.match(boxes, targets)
        wanted = torch.full((len(hidden),), 2)
        wanted[rows] = labels[columns]
        box_loss = nn.functional.l1_loss(boxes[rows], targets[columns])
        return {"loss": nn.functional.cross_entropy(logits, wanted) + 5 * box_loss, "cost": box_loss.item()}


def healthy():
    lora = LoraConfig(r=2, target_modules=["linear1", "linear2", "boxes", "classes"])
    batch = {"memory": torch.randn(1, 6, 8), "labels": torch.tensor([0, 1]), "targets": torch.rand(2, 4)}
    return Example(get_peft_model(Detector(), lora).train(), batch)
