"""A second round of training from a saved adapter: into nothing, where the names of its keys lack the adapter's."""

import sys
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny import IDS, llama, trained, wrapped

folder = tempfile.mkdtemp()
first = wrapped(init_lora_weights=False)
first.save_pretrained(folder)
if "healthy" in sys.argv:
    model = PeftModel.from_pretrained(llama(), folder, is_trainable=True)
elif "inference" in sys.argv:
    model = PeftModel.from_pretrained(llama(), folder)  # <- cause inference
else:
    model = wrapped()
    model.load_state_dict(load_file(f"{folder}/adapter_model.safetensors"), strict=False)  # <- cause lost
model.train()
optimizer = torch.optim.AdamW(trained(model) or model.parameters(), lr=1e-3)
for _ in range(4):
    optimizer.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()
