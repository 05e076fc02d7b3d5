"""A loop of accelerate's, for `accelerate launch` and `torchrun`."""

import sys

import torch
from accelerate import Accelerator
from tiny import ROWS, trained, wrapped

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = wrapped()
if "optimizer-first" in sys.argv:
    from peft import get_peft_model
    from tiny import llama, lora

    base = llama()
    optimizer = torch.optim.AdamW(base.parameters(), lr=1e-3)  # <- cause optimizer-first
    model = get_peft_model(base, lora())
else:
    optimizer = torch.optim.AdamW(trained(model), lr=1e-3)
loader = torch.utils.data.DataLoader(ROWS * 4, batch_size=2)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
for batch in loader:
    with accelerator.accumulate(model):
        accelerator.backward(model(**batch).loss)
        optimizer.step()
        optimizer.zero_grad()
print("trained to the end")
