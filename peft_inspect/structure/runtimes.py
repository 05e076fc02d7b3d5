"""Runtimes that own the step of a model, its weights or its gradients: none but the program's own step may be run there.

An extra pass pairs with the collectives of other processes, counts as the one step whose graph a reducer remembers, or leaves
weights where their owner does not look for them; most of it without a message.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.records import InspectionError
from peft_inspect.structure.shards import is_part
from peft_inspect.walk import modules_of

if TYPE_CHECKING:
    from torch import nn

_INSTEAD = (
    "Watch the program's own step instead, in every process: `torchrun … -m peft_inspect run train.py`; "
    "or inspect the model in a process of its own, before it is handed to the runtime"
)


def require_own_pass(model: nn.Module) -> None:
    """Make sure that a pass of our own disturbs nobody.

    Raises:
        InspectionError: it would; says who owns the step, and what to call instead.
    """
    reason = owner_of_the_step(model)
    if reason is not None:
        raise InspectionError(f"not inspected: {reason}. {_INSTEAD}")


def owner_of_the_step(model: nn.Module) -> str | None:
    """Why no pass may be run with this model besides those of its program; None where one may. Looks, and runs nothing."""
    rank, size = place()
    if size > 1:
        return f"this process is rank {rank} of {size}, and a pass of its own would mix with what the {size} of them exchange"
    return _by_weights(model) or _by_hooks(model) or (_by_wrapper(model) if _is_distributed() else None)


def place() -> tuple[int, int]:
    """The rank of this process and the number of them; 0 and 1 where it is alone."""
    if not _is_distributed():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _by_weights(model: nn.Module) -> str | None:
    for module in modules_of(model):
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if hasattr(parameter, "ds_id"):
                return "DeepSpeed ZeRO-3 holds the weights, and gathers them in its own step"
            if getattr(parameter, "_is_flat_param", False):
                return "FSDP has laid the weights together into flat parameters"
            if is_part(parameter):
                return f"{name} is a DTensor, whose operations are collectives"
            if parameter.layout is torch.strided and not parameter.is_meta and _is_freed(parameter):
                return f"the memory of {name} is freed between steps by a runtime"
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    if kind is not None and any(isinstance(module, kind) for module in modules_of(model)):
        return "FSDP holds the weights, and gathers them in its own step"
    return None


def _is_freed(parameter: torch.Tensor) -> bool:
    if not parameter.numel() or getattr(parameter, "has_values", True) is False:
        return False
    try:
        return parameter.untyped_storage().nbytes() == 0
    except (NotImplementedError, RuntimeError):  # wrappers without a storage of their own
        return False


def _by_hooks(model: nn.Module) -> str | None:
    """Offloading: hooks that bring weights in before a forward and take them out after it."""
    for module in modules_of(model):
        attributes = vars(module)
        if "_hf_hook" not in attributes and "_diffusers_hook" not in attributes:
            continue
        for hook in _offloading(vars(module).get("_hf_hook")):
            return f"{type(hook).__name__} of accelerate brings the weights of {type(module).__name__} in only while it runs"
        registry = vars(module).get("_diffusers_hook")
        if any("offload" in str(name) for name in getattr(registry, "hooks", ())):
            return f"group offloading of diffusers brings the weights of {type(module).__name__} in only while it runs"
    return None


def _offloading(hook: Any) -> Iterator[Any]:
    for single in getattr(hook, "hooks", (hook,)):
        if getattr(single, "offload", False) or type(single).__name__ == "CpuOffload":
            yield single


def _by_wrapper(model: nn.Module) -> str | None:
    """What was put around the model; the model itself does not know it."""
    ddp, engine = torch.nn.parallel.DistributedDataParallel, getattr(sys.modules.get("deepspeed"), "DeepSpeedEngine", ())
    inside = {id(module) for module in model.modules()}
    for other in gc.get_objects():
        if issubclass(type(other), (ddp, *((engine,) if engine else ()))) and any(id(module) in inside for module in other.modules()):
            if not issubclass(type(other), ddp):
                return "DeepSpeed's engine takes the gradients as they arrive"
            if other.static_graph:
                return "DistributedDataParallel with static_graph remembers the graph of one step, and takes a pass for it"
    return None
