"""What a trial changes in the models of a program, and how it is put back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def as_it_was(models: Iterable[nn.Module]) -> Iterator[None]:
    """A trial changes states and `requires_grad`; the next one starts from what the program has set."""
    modules = [module for model in models for module in model.modules()]
    states = [(module, dict(vars(module))) for module in modules]
    held = (parameter for module in modules for parameter in module._parameters.values() if parameter is not None)
    parameters = [(parameter, parameter.requires_grad) for parameter in held]
    try:
        yield
    finally:
        for module, state in states:
            vars(module).clear()
            vars(module).update(state)
        with torch.no_grad():
            for parameter, required in parameters:
                if parameter.requires_grad != required:
                    parameter.requires_grad_(required)
                    parameter.grad = None
