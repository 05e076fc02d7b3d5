"""What is put around modules and does none of their work: sharding, activation checkpointing, compilation, reduction of gradients.

Users do not know the names that these add to every path below; and a path without them leads to the same module, because they
hand attributes on.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from torch.nn.parallel import DataParallel, DistributedDataParallel

from peft_inspect.internals import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

ADDED = ("_fsdp_wrapped_module", "_checkpoint_wrapped_module", ORIGINAL)
"""Under which names they hold the module that they are put around."""


def inside(module: nn.Module) -> nn.Module:
    """The module itself, without what is put around it."""
    while (held := _held(module)) is not None:
        module = held
    return module


def around(module: nn.Module) -> Iterator[nn.Module]:
    """What is put around it, from the outside in."""
    while (held := _held(module)) is not None:
        yield module
        module = held


def _held(module: nn.Module) -> nn.Module | None:
    modules = module._modules
    if not modules:
        return None
    if isinstance(module, (DataParallel, DistributedDataParallel)) or type(module).__name__ == "DeepSpeedEngine":
        return modules.get("module")
    return next((modules[name] for name in ADDED if name in modules), None)


def class_of(module: nn.Module) -> type:
    """The class of a module as it was written: `fully_shard` derives one of its own from it."""
    kind = type(module)
    derived: Any = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    return kind.__bases__[-1] if derived is not None and derived in kind.__bases__ else kind
