"""A program that Hydra starts, with its configuration from the command line."""

import tempfile

import hydra
import torch
from hydra.core.config_store import ConfigStore
from tiny import IDS, trained, wrapped

logs = {"run": {"dir": tempfile.mkdtemp()}}
ConfigStore.instance().store(name="training", node={"lr": 1e-3, "fault": "", "hydra": logs})


@hydra.main(version_base=None, config_name="training")
def main(settings):
    model = wrapped()
    head = model.get_output_embeddings().requires_grad_(True)
    optimizer = torch.optim.AdamW(trained(model), lr=settings.lr)
    for _ in range(4):
        optimizer.zero_grad()
        hidden = model.base_model.model.model(IDS).last_hidden_state
        if settings.fault:
            hidden = hidden.detach()  # <- cause fault=detached
        head(hidden).square().mean().backward()
        optimizer.step()
    print("trained to the end")


main()
