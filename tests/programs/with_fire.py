"""A program whose arguments Fire reads off a function."""

import fire
import torch
from tiny import IDS, trained, wrapped


def main(lr=1e-3, fault=""):
    model = wrapped()
    head = model.get_output_embeddings().requires_grad_(True)
    optimizer = torch.optim.AdamW(trained(model), lr=lr)
    for _ in range(4):
        optimizer.zero_grad()
        hidden = model.base_model.model.model(IDS).last_hidden_state
        if fault:
            hidden = hidden.detach()  # <- cause --fault=detached
        head(hidden).square().mean().backward()
        optimizer.step()
    print("trained to the end")


if __name__ == "__main__":
    fire.Fire(main)
