"""The same input gives the same report: what is drawn at random while loading is drawn alike each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def repeatable() -> Iterator[None]:
    """Seed the random number generators: weights, fresh adapters and whatever the user's code draws; put them back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global generator is what users' code draws from
    with torch.random.fork_rng(devices=()):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
