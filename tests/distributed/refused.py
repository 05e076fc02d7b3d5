"""One of two processes inspects the model by itself: it is refused, and both train as they would have.

Run it: torchrun --nproc_per_node 2 tests/distributed/refused.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import peft_inspect
from peft_inspect.records import InspectionError
from peft_inspect.rules.examples import text_batch, tiny_llama


def build(way: str) -> nn.Module:
    torch.manual_seed(0)
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    if way == "fsdp2":
        return fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    return DistributedDataParallel(model, static_graph=way == "static-graph")


def refusal(inspect: Callable[..., object], model: nn.Module) -> str:
    try:
        inspect(model, text_batch())
    except InspectionError as error:
        return str(error)
    return "inspected"


def train(way: str, *, inspected: bool) -> list[float]:
    """The losses of three steps; the first process inspects before them."""
    model = build(way)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    if inspected and dist.get_rank() == 0:
        print(f"{way}: {refusal(peft_inspect.check, model)}")
        print(f"{way}: {refusal(peft_inspect.gradcheck, model)}")
        peft_inspect.tree(model)
    losses = []
    for _ in range(3):
        loss = model(**text_batch()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def main() -> None:
    dist.init_process_group("gloo")
    for way in ("ddp", "static-graph", "fsdp2"):
        if train(way, inspected=True) != train(way, inspected=False):
            sys.exit(f"{way}: other losses with the inspection on rank {dist.get_rank()}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
