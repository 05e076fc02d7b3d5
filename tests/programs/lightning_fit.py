"""Lightning, automatic and manual optimization; the features can be detached from the head."""

import sys

import torch
from lightning import LightningModule, Trainer
from tiny import ROWS, trained, wrapped


class Chat(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = wrapped()
        self.model.get_output_embeddings().weight.requires_grad_("detached" in sys.argv)

    def loss_of(self, batch):
        hidden = self.model.base_model.model.model(batch["input_ids"]).last_hidden_state
        if "detached" in sys.argv:
            hidden = hidden.detach()  # <- cause detached
        logits = self.model.get_output_embeddings()(hidden)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    def training_step(self, batch, batch_idx):
        loss = self.loss_of(batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(trained(self), lr=1e-2)


class Manual(Chat):
    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss_of(batch))
        optimizer.step()


quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
module = Manual() if "manual" in sys.argv else Chat()
Trainer(accelerator="cpu", devices=1, max_steps=6, **quiet).fit(module, torch.utils.data.DataLoader(ROWS, batch_size=2))
