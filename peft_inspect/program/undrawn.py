"""What this tool does in the midst of a program takes none of its random numbers: some libraries draw while they are imported."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undrawn() -> Iterator[None]:
    """The random numbers of Python, NumPy and torch go on afterwards as if nothing had happened in between."""
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    python = random.getstate()
    of_numpy = numpy.get_state() if numpy is not None else None
    of_torch = torch.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.set_state(of_numpy)
        if torch is not None:
            torch.set_rng_state(of_torch)
