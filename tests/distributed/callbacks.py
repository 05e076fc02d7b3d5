"""The callbacks where trainers run several processes: torchrun --nproc_per_node 2 tests/distributed/callbacks.py trainer:one

With `:bare` nothing is watched, with `:healthy` nothing is wrong. Every process writes what it saw to the folder in ROWS_OUT, or prints it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from runtimes import Classifier
from torch import nn

from peft_inspect.inspection import FindingsError


class Model(Classifier):
    """Its forward gives what trainers take."""

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": super().forward(input_ids, labels)}


def rows() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 64, (40, 6), generator=generator)
    return [{"input_ids": row, "labels": row[0] % 4} for row in ids]


def trainer(fault: str, *, bare: bool) -> tuple[nn.Module, Any, list[Any]]:
    from transformers import Trainer, TrainingArguments

    from peft_inspect.integrations.transformers import PeftInspectCallback

    callbacks = [] if bare else [PeftInspectCallback()]
    arguments = TrainingArguments(
        tempfile.mkdtemp(), max_steps=5, per_device_train_batch_size=2, use_cpu=True, ddp_backend="gloo", learning_rate=0.01,
        ddp_find_unused_parameters=True, save_strategy="no", disable_tqdm=True, report_to=[],
    )  # fmt: skip
    training = Trainer(model_of(fault), arguments, train_dataset=rows(), callbacks=callbacks)
    return training.model, training.train, callbacks


def lightning(fault: str, *, bare: bool) -> tuple[nn.Module, Any, list[Any]]:
    import lightning
    from lightning.pytorch.strategies import DDPStrategy

    from peft_inspect.integrations.lightning import PeftInspectCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model_of(fault)

        def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.model(**batch)["loss"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW([parameter for parameter in self.parameters() if parameter.requires_grad], lr=0.01)

    callbacks = [] if bare else [PeftInspectCallback()]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    strategy = DDPStrategy(process_group_backend="gloo", find_unused_parameters=True)
    training = lightning.Trainer(accelerator="cpu", devices=2, strategy=strategy, max_steps=5, callbacks=callbacks, **quiet)
    module = Module()
    return module.model, lambda: training.fit(module, torch.utils.data.DataLoader(rows(), batch_size=2)), callbacks


def model_of(fault: str) -> Model:
    return Model(fault, ["q_proj", "v_proj"])


def result_of(kind: str, fault: str) -> dict[str, Any]:
    model, train, callbacks = {"trainer": trainer, "lightning": lightning}[kind](fault, bare=fault == "bare")
    before = weights(model)
    stopped, began = False, time.monotonic()
    try:
        train()
    except FindingsError:
        stopped = True
    report = callbacks[0].report if callbacks else None
    return {
        "stopped": stopped,
        "seconds": time.monotonic() - began,
        "weights": weights(model),
        "trained": weights(model) != before,
        "findings": [(finding.code, finding.message, str(finding.source)) for finding in report.findings] if report else None,
    }


def weights(model: nn.Module) -> list[Any]:
    return [parameter.tolist() for parameter in model.parameters() if parameter.requires_grad]


def main() -> None:
    torch.distributed.init_process_group("gloo")
    results = {argument: result_of(*argument.split(":")) for argument in sys.argv[1:]}
    rank = torch.distributed.get_rank()
    if folder := os.environ.get("ROWS_OUT"):
        Path(folder, f"{rank}.json").write_text(json.dumps(results))
    elif rank == 0:
        print(json.dumps(results, indent=1))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
