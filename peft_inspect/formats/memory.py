"""What training the adapter takes besides the base weights and the activations."""

from __future__ import annotations

from dataclasses import dataclass

from peft_inspect.formats.numbers import size
from peft_inspect.records import Structure


@dataclass(frozen=True)
class AdapterMemory:
    """Bytes. Gradients and optimizer states are those of all trainable parameters; AdamW keeps two states each."""

    weights: int
    gradients: int
    optimizer: int


def adapter_memory(structure: Structure) -> AdapterMemory:
    """Bytes that the adapters' weights, the gradients and the states of AdamW take, in the dtypes at hand."""
    gradients = sum(parameter.nbytes for parameter in structure.parameters if parameter.requires_grad)
    weights = sum(parameter.nbytes for parameter in structure.parameters if parameter.role == "adapter")
    return AdapterMemory(weights, gradients, 2 * gradients)


def memory_line(structure: Structure, *, exact: bool = False) -> str:
    """One line on it."""
    memory = adapter_memory(structure)
    weights, gradients, states = (size(part, exact=exact) for part in (memory.weights, memory.gradients, memory.optimizer))
    return f"adapter weights {weights}, gradients {gradients}, AdamW states {states}"
