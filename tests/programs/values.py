"""Gradients that arrive and are worth nothing: zero, not a number, too small for their dtype, or with nothing to compare to."""

import sys
import threading

import torch
from tiny import IDS, trained, wrapped
from torch.nn.functional import cross_entropy

kind = sys.argv[-1]
half = kind == "underflow"
model = wrapped(lora_dropout=0.0)
if half:
    model.half()  # <- cause underflow


def log_of_zero():
    logits = model(input_ids=IDS).logits
    return torch.log(logits.softmax(-1) - logits.softmax(-1).detach()).mean()  # <- cause log_of_zero


def root_of_zero():
    """Finite forwards, and NaN on the way back."""
    logits = model(input_ids=IDS).logits
    gaps = (logits - logits.detach()).abs().sum(-1)
    return torch.sqrt(gaps).sum() + logits.square().mean()  # <- cause root_of_zero


def underflow():
    return model(input_ids=IDS, labels=IDS).loss * 1e-6


def distilled():
    """Held to its own base by nothing else, a fresh adapter has nothing to learn."""
    with torch.no_grad(), model.disable_adapter():
        teacher = model(input_ids=IDS).logits
    return (model(input_ids=IDS).logits - teacher).square().mean()  # <- cause distilled


def ignored():
    """Targets that the model never sees, all of them masked."""
    targets = torch.full_like(IDS, -1)
    return cross_entropy(model(input_ids=IDS).logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")


def gated():
    """What a gate that is trained from zero multiplies gets its gradient after the first step, whenever old gradients are cleared."""
    if not hasattr(model, "gate"):
        model.gate = torch.nn.Parameter(torch.zeros(64))
        optimizer.add_param_group({"params": [model.gate]})
    loss = (model.gate * model(input_ids=IDS).logits - 1).square().mean()
    optimizer.zero_grad()
    return loss


def hooked():
    logits = model(input_ids=IDS, labels=IDS).logits
    logits.register_hook(lambda gradient: gradient * 0)  # <- cause hooked
    return logits.square().mean()


def sometimes():
    """One batch without a label is no fault."""
    global batches  # noqa: PLW0603
    batches += 1
    return model(input_ids=IDS, labels=torch.full_like(IDS, -100) if batches == 1 else IDS).loss.nan_to_num()


batches = 0


optimizer = torch.optim.AdamW(trained(model), lr=1e-3)


def train():
    for _ in range(6):
        if kind != "gated":
            optimizer.zero_grad()
        globals()[kind]().backward()
        optimizer.step()
    print("trained to the end")


if "thread" in sys.argv:
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
else:
    train()
