"""The model that is trained holds no adapter: it is on a copy, or on none."""

import copy
import sys

import torch
from peft import get_peft_model
from tiny import IDS, llama, lora, wrapped

if "first" in sys.argv:  # a phase without an adapter before the one with it
    model = llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    model = wrapped()
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3)
else:
    model = llama()
    if "copied" in sys.argv:
        get_peft_model(copy.deepcopy(model), lora())  # <- cause copied
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(1000):
    optimizer.zero_grad()
    loss = model(input_ids=IDS, labels=IDS).loss  # <- cause forgotten
    loss.backward()
    optimizer.step()
print("trained to the end")
