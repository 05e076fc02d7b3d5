"""How much memory is free, asked before anything large is allocated."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    import torch

_GROUP = Path("/sys/fs/cgroup")
_HEADROOM = 1.1  # activations, adapters and the allocator's rounding


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping: the machine's or the container's, whichever is less. None: unknown."""
    known = [amount for amount in (_machine(), _container()) if amount is not None]
    return min(known, default=None)


def require_memory(model: torch.nn.Module, what: str) -> None:
    """Refuse, before a byte is allocated, weights that do not fit.

    Args:
        model: the model on the meta device, in the dtype it would be allocated in.
        what: the model as the user named it.

    Raises:
        InspectionError: with the size needed and the size there is.
    """
    needed = weight_bytes(model)
    available = available_memory()
    if available is not None and needed * _HEADROOM > available:
        raise InspectionError(
            f"the weights of {what} take {gigabytes(needed)} and {gigabytes(available)} of memory are free: "
            "use --weights none, which runs the model at its full size without its weights, or --reduce"
        )


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters and buffers, each tensor once."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def gigabytes(amount: int) -> str:
    """`13.5 GB`."""
    return f"{amount / 1e9:,.1f} GB"


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not a POSIX system, or one without these names
        return None


def _container() -> int | None:
    """What the control group leaves free; None outside a limited one."""
    for folder, limit, used in (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max": no limit
            allowed, taken = (int((_GROUP / folder / name).read_text()) for name in (limit, used))
            return max(0, allowed - taken + _reclaimable(_GROUP / folder / "memory.stat"))
    return None


def _reclaimable(statistics: Path) -> int:
    """Cached file pages: they count as used and are given up when memory is asked for."""
    fields = dict(line.split() for line in statistics.read_text().splitlines())
    return int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0))
