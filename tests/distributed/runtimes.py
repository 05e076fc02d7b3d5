"""What the rows train: one small model, as each runtime takes it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, apply_activation_checkpointing, checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM


class Classifier(nn.Module):
    """A tower with adapters, and a head of its own. `fault` is who makes a mistake: no process, each, or the second."""

    def __init__(self, fault: str, targets: list[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        base = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                bos_token_id=3, eos_token_id=1, pad_token_id=0,
            )
        )  # fmt: skip
        self.tower = get_peft_model(base.model, LoraConfig(target_modules=targets, init_lora_weights=True))
        self.head = nn.Linear(16, 4)
        self.blind = fault == "everywhere" or (fault == "one" and dist.get_rank() == 1)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.blind:
            with torch.no_grad():  # <- cause
                hidden = self.tower(input_ids=input_ids).last_hidden_state
        else:
            hidden = self.tower(input_ids=input_ids).last_hidden_state
        return nn.functional.cross_entropy(self.head(hidden.mean(1).to(self.head.weight.dtype)), labels)


@dataclass
class Training:
    """A model as a runtime calls it, its optimizer, and what a step of its loop does."""

    model: Any
    optimizer: Any
    microbatches: int = 1
    quiet: Callable[[], Any] = nullcontext  # around the microbatches that are not exchanged
    same_batch: bool = False  # every process gets the same

    def step(self, number: int) -> float:
        total = 0.0
        for part in range(self.microbatches):
            seed = 100 * number + 10 * part + (0 if self.same_batch else dist.get_rank())
            generator = torch.Generator().manual_seed(seed)
            batch = {
                "input_ids": torch.randint(4, 64, (2, 6), generator=generator),
                "labels": torch.randint(0, 4, (2,), generator=generator),
            }
            with self.quiet() if part + 1 < self.microbatches else nullcontext():
                loss = self.model(**batch)
                loss.backward()
            total += loss.item()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def weights(self) -> Iterable[torch.Tensor]:
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                yield parameter.to_local().detach() if hasattr(parameter, "to_local") else parameter.detach()


def model(fault: str, targets: tuple[str, ...] = ("q_proj", "v_proj")) -> Classifier:
    return Classifier(fault, list(targets))


def trainable(of: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in of.parameters() if parameter.requires_grad]


def adam(of: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trainable(of), lr=0.01)


def ddp(fault: str, *, microbatches: int = 1, **options: Any) -> Training:
    wrapped = DistributedDataParallel(model(fault), **options)
    return Training(wrapped, adam(wrapped), microbatches, wrapped.no_sync if microbatches > 1 else nullcontext)


def ddp_checkpointed(fault: str, *, reentrant: bool) -> Training:
    inner = model(fault)
    inner.tower.base_model.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    inner.tower.enable_input_require_grads()
    wrapped = DistributedDataParallel(inner.train())
    return Training(wrapped, adam(wrapped))


def sharded_optimizer(fault: str) -> Training:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    wrapped = DistributedDataParallel(model(fault), find_unused_parameters=True)
    return Training(wrapped, ZeroRedundancyOptimizer(trainable(wrapped), torch.optim.AdamW, lr=0.01))


def fsdp2(fault: str, *, layers: bool = True, checkpoint: bool = False, reentrant: bool = False, **options: Any) -> Training:
    sharded: Any = model(fault)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    blocks = sharded.tower.base_model.model.layers
    if reentrant:
        sharded.tower.base_model.model.gradient_checkpointing_enable({"use_reentrant": True})
        sharded.tower.enable_input_require_grads()
        sharded.train()
    if checkpoint:
        apply_activation_checkpointing(
            sharded, partial(checkpoint_wrapper, checkpoint_impl=CheckpointImpl.NO_REENTRANT), check_fn=lambda part: part in list(blocks)
        )
    for block in blocks if layers else ():
        fully_shard(block, mesh=mesh, **options)
    fully_shard(sharded, mesh=mesh, **options)
    return Training(sharded, adam(sharded))


def half() -> MixedPrecisionPolicy:
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def fsdp1(fault: str, *, flat: bool) -> Training:
    from peft.utils.other import fsdp_auto_wrap_policy

    inner = model(fault)
    policy = fsdp_auto_wrap_policy(inner) if flat else None
    wrapped = FullyShardedDataParallel(inner, auto_wrap_policy=policy, use_orig_params=not flat, device_id=torch.device("cpu"))
    return Training(wrapped, adam(wrapped))


def tensor_parallel(fault: str) -> Training:
    """Each layer is split over the processes: its base, and that matrix of its adapter which meets the split side."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    sharded = model(fault, ("gate_proj", "down_proj"))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    plan = {
        "mlp.gate_proj.base_layer": ColwiseParallel(),
        "mlp.gate_proj.lora_B.default": ColwiseParallel(),
        "mlp.up_proj": ColwiseParallel(),
        "mlp.down_proj.base_layer": RowwiseParallel(),
        "mlp.down_proj.lora_A.default": RowwiseParallel(),
    }
    for block in sharded.tower.base_model.model.layers:
        parallelize_module(block, mesh, plan)
    return Training(sharded, adam(sharded), same_batch=True)


def compiled(fault: str) -> Training:
    """Compiled in the way that needs no C++ compiler; the modules inside run as they are written."""
    inner = model(fault)
    wrapped = DistributedDataParallel(inner, find_unused_parameters=True)
    return Training(torch.compile(wrapped, backend="aot_eager"), adam(wrapped))


def resumed(fault: str) -> Training:
    """The adapter was saved by `torch.distributed.checkpoint`, and is loaded into a sharded model."""
    import torch.distributed.checkpoint as dcp

    first, second = fsdp2(""), fsdp2(fault)
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    saved = {name: value for name, value in first.model.state_dict().items() if "lora_" in name}
    dcp.save(saved, checkpoint_id=folder[0])
    wanted = {name: value for name, value in second.model.state_dict().items() if "lora_" in name}
    dcp.load(wanted, checkpoint_id=folder[0])
    second.model.load_state_dict(wanted, strict=False)
    return second


def deepspeed(fault: str, *, stage: int) -> Training:
    import deepspeed

    inner = model(fault)
    settings = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True}
    engine, optimizer, _, _ = deepspeed.initialize(model=inner, optimizer=adam(inner), config=settings)
    return Engine(engine, optimizer)


class Engine(Training):
    """DeepSpeed's own loop."""

    def step(self, number: int) -> float:
        generator = torch.Generator().manual_seed(100 * number + dist.get_rank())
        inputs = torch.randint(4, 64, (2, 6), generator=generator)
        loss = self.model(input_ids=inputs, labels=torch.randint(0, 4, (2,), generator=generator))
        self.model.backward(loss)
        self.model.step()
        return loss.item()

    def weights(self) -> Iterable[torch.Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        return [safe_get_full_fp32_param(parameter).detach().clone() for parameter in trainable(self.model)]


ROWS: dict[str, Callable[[str], Training]] = {
    "ddp": ddp,
    "ddp-unused": partial(ddp, find_unused_parameters=True),
    "ddp-static-graph": partial(ddp, static_graph=True),
    "ddp-views": partial(ddp, gradient_as_bucket_view=True),
    "ddp-accumulation": partial(ddp, microbatches=2),
    "ddp-checkpoint": partial(ddp_checkpointed, reentrant=False),
    "ddp-checkpoint-reentrant": partial(ddp_checkpointed, reentrant=True),
    "zero-redundancy": sharded_optimizer,
    "fsdp2": fsdp2,
    "fsdp2-whole": partial(fsdp2, layers=False),
    "fsdp2-mixed-precision": lambda fault: fsdp2(fault, mp_policy=half()),
    "fsdp2-kept": partial(fsdp2, reshard_after_forward=False),
    "fsdp2-checkpoint": partial(fsdp2, checkpoint=True),
    "fsdp2-checkpoint-reentrant": partial(fsdp2, reentrant=True),
    "fsdp1": partial(fsdp1, flat=False),
    "fsdp1-flat": partial(fsdp1, flat=True),
    "tensor-parallel": tensor_parallel,
    "compiled": compiled,
    "checkpoint-resumed": resumed,
    "zero-1": partial(deepspeed, stage=1),
    "zero-2": partial(deepspeed, stage=2),
    "zero-3": partial(deepspeed, stage=3),
}
