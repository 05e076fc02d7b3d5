"""A block that reads the raw weight of one of its adapted layers, sharded: torchrun --nproc_per_node 2 tests/distributed/bypass.py

Every process writes what it saw to the folder in ROWS_OUT, or prints it.
"""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import peft_inspect


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.down(torch.tanh(self.up(hidden)))


class Reading(Block):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + nn.functional.linear(torch.tanh(self.up(hidden)), self.down.weight)  # <- cause


def train(way: str, *, reads: bool) -> list[Any]:
    torch.manual_seed(0)
    model: Any = get_peft_model(
        nn.Sequential(*((Reading if reads else Block)() for _ in range(2))), LoraConfig(target_modules=["up", "down"])
    )
    mesh = init_device_mesh("cpu", (2,))
    half = {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16)} if way == "half" else {}
    for block in model.base_model.model if way != "whole" else ():
        fully_shard(block, mesh=mesh, **half)
    fully_shard(model, mesh=mesh, **half)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    losses = []
    for number in range(5):
        generator = torch.Generator().manual_seed(10 * number + dist.get_rank())
        loss = model(torch.randn(4, 16, generator=generator)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return [losses, *(parameter.to_local().tolist() for parameter in trained)]


def result_of(way: str, *, reads: bool, watched: bool = True) -> dict[str, Any]:
    with peft_inspect.watch(fail_on="never") if watched else nullcontext() as watching:
        trained = train(way, reads=reads)
    report = watching.report if watching else None
    found = [(finding.code, list(finding.modules), str(finding.source)) for finding in report.findings] if report else None
    return {"trained": trained, "findings": found}


def main() -> None:
    dist.init_process_group("gloo")
    results = {
        way: {
            "bare": result_of(way, reads=False, watched=False),
            "healthy": result_of(way, reads=False),
            "reads": result_of(way, reads=True),
        }
        for way in ("blocks", "whole", "half")
    }
    if folder := os.environ.get("ROWS_OUT"):
        Path(folder, f"{dist.get_rank()}.json").write_text(json.dumps(results))
    else:
        print(json.dumps({dist.get_rank(): {way: {name: each["findings"] for name, each in of.items()} for way, of in results.items()}}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
