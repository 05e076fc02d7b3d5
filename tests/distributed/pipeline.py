"""Stages of a pipeline, each with adapters of its own: torchrun --nproc_per_node 2 tests/distributed/pipeline.py gpipe:one

With `:bare` nothing is watched. Every process writes what it saw to the folder in ROWS_OUT, or prints it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

import peft_inspect
from peft_inspect.inspection import FindingsError


class Stage(nn.Module):
    """What is the same in both."""

    def __init__(self, *, blind: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.blind = blind

    def mixed(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(not self.blind):  # <- cause
            return hidden + self.down(torch.tanh(self.up(hidden)))


class First(Stage):
    def __init__(self, *, blind: bool) -> None:
        super().__init__(blind=blind)
        self.embed = nn.Embedding(64, 16)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.mixed(self.embed(ids))


class Last(Stage):
    def __init__(self, *, blind: bool) -> None:
        super().__init__(blind=blind)
        self.head = nn.Linear(16, 4)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(self.mixed(hidden).mean(1))


def train(schedule: str, fault: str, rank: int) -> list[Any]:
    blind = fault == "everywhere" or (fault == "one" and rank == 1)
    saved = ["head"] if rank else None  # something to train, whatever the layers do
    model = get_peft_model((Last if rank else First)(blind=blind), LoraConfig(target_modules=["up", "down"], modules_to_save=saved))
    kind = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}[schedule]
    pipeline = kind(PipelineStage(model, rank, 2, torch.device("cpu")), 2, loss_fn=nn.functional.cross_entropy)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    losses: list[Any] = []
    for number in range(5):
        generator = torch.Generator().manual_seed(number)
        ids, labels = torch.randint(0, 64, (4, 6), generator=generator), torch.randint(0, 4, (4,), generator=generator)
        of_step: list[torch.Tensor] = []
        pipeline.step(target=labels, losses=of_step) if rank else pipeline.step(ids)
        optimizer.step()
        optimizer.zero_grad()
        losses += [loss.item() for loss in of_step]
    return [losses, *(parameter.tolist() for parameter in trained)]


def result_of(schedule: str, fault: str, rank: int) -> dict[str, Any]:
    trained, began = None, time.monotonic()
    with suppress(FindingsError), peft_inspect.watch() if fault != "bare" else nullcontext() as watched:
        trained = train(schedule, fault, rank)
    report = watched.report if watched else None
    found = [(finding.code, finding.message, list(finding.modules), str(finding.source)) for finding in report.findings] if report else None
    return {"trained": trained, "seconds": time.monotonic() - began, "findings": found, "refused": watched and watched._session.refused}


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    results = {}
    for argument in sys.argv[1:]:
        results[argument] = result_of(*argument.split(":"), rank)
        dist.barrier()
    if folder := os.environ.get("ROWS_OUT"):
        Path(folder, f"{rank}.json").write_text(json.dumps(results))
    else:
        print(json.dumps({rank: results}, indent=1))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
