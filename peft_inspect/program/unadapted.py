"""Models without an adapter that a program trains all the same: the adapter is missing, or on another object."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from peft_inspect.records import Source, Structure, Subject
from peft_inspect.structure import read_structure
from peft_inspect.structure.source.lines import line_above, source
from peft_inspect.structure.wrappers import class_of, inside

if TYPE_CHECKING:
    from torch import nn

    from peft_inspect.run.changes import Changes


class Unadapted:
    """What is known of them, as long as no model with adapters is called with gradients on."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._called: dict[nn.Module, Source | None] = {}  # since the last step
        self._structures: dict[str, Structure] = {}
        self.steps = 0

    def called(self, module: nn.Module) -> None:
        """The outermost call of a module that holds no adapter."""
        if torch.is_grad_enabled() and module not in self._called:
            self._called[module] = source(line_above(sys._getframe(1)))

    def step_ended(self) -> None:
        """An optimizer has stepped."""
        trained = [module for module in self._called if any(parameter.grad is not None for parameter in module.parameters())]
        self.steps += bool(trained)
        for module in trained:
            name = class_of(inside(module)).__name__
            if name not in self._structures:  # read at once: the program may let go of the model
                self._structures[name] = replace(read_structure(Subject(module, name)), called_by=self._called[module])
        self._called.clear()

    def structures(self) -> dict[str, Structure]:
        """Those that were trained, by class; the line of an adapter, where one was put on another object."""
        return {name: replace(structure, adapted_by=source(self._changes.adapted_by)) for name, structure in self._structures.items()}

    def forget(self) -> None:
        """Hold nothing of the program any longer."""
        self._called.clear()


@dataclass
class Seen:
    """What there was of the program, for where it is no step of a model with adapters."""

    with_adapters: int = 0  # calls
    without_adapters: int = 0
    skipped: int = 0  # steps that a gradient scaler left out

    def __str__(self) -> str:
        if self.skipped:
            return f"the gradient scaler left out all {self.skipped} steps, because gradients were not finite"
        if self.with_adapters:
            return f"of {self.with_adapters} calls of models with adapters none was followed by a backward"
        if self.without_adapters:
            return f"none of the models that it called {self.without_adapters} times holds an adapter layer"
        return "it called no model"
