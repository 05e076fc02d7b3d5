"""What there is in the process: the models with adapters that a program trains, and its optimizers."""

from __future__ import annotations

import gc
import sys
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch import nn

from peft_inspect.run.graph import leaves, upstream
from peft_inspect.structure.adapter_layers import holds_adapter
from peft_inspect.structure.optimizers import held_by
from peft_inspect.structure.wrappers import inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor
    from torch.optim import Optimizer


def root_of(module: nn.Module) -> nn.Module | None:
    """The model that a call of `module` trains; None where it holds no adapter layer.

    That is what was called, with the wrappers of a runtime, which add nothing to its paths. Where only a part of a PeftModel was
    called, it is the PeftModel.
    """
    known = _ROOTS.get(module)
    if known is not None and (root := known()) is not None:
        return root
    parts = list(module.modules())
    if not any(map(holds_adapter, parts)):
        return None
    root, held = module, inside(module)
    if not any(isinstance(part, PeftModel) for part in parts):
        around = _instances([PeftModel])
        root = next((other for other in around if any(part is held for part in other.modules())), module)
    _ROOTS[module] = weakref.ref(root)
    return root


def roots_behind(tensors: Iterable[Tensor]) -> list[nn.Module]:
    """The PEFT models whose weights these tensors depend on."""
    weights = leaves(upstream([tensor.grad_fn for tensor in tensors]))
    models = _instances([PeftModel])
    return [model for model in models if any(id(parameter) in weights for parameter in model.parameters())]


_ROOTS: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()  # what holds adapters goes on to


def live_optimizers() -> list[Optimizer]:
    """The optimizers of this process, DeepSpeed's among them; one that was not set up holds nothing and is none."""
    if _looked_up:
        return _looked_up[-1]
    runtime = getattr(sys.modules.get("deepspeed.runtime.base_optimizer"), "DeepSpeedOptimizer", None)
    kinds = (torch.optim.Optimizer, *(() if runtime is None else (runtime,)))
    return [other for other in _instances(kinds) if vars(other).keys() & _HOLDING]


@contextmanager
def looked_up_once() -> Iterator[None]:
    """No optimizer is made or let go of inside: to look through all objects of a process takes as long as a tenth of a step."""
    _looked_up.append(live_optimizers())
    try:
        yield
    finally:
        _looked_up.pop()


_looked_up: list[list[Optimizer]] = []


def _instances(kinds: Iterable[type]) -> list[Any]:
    """All objects of these classes and of those derived from them; to look up a million types is faster than to ask each for its bases."""
    wanted = list(kinds)
    for kind in wanted:  # grows while it is walked
        wanted += type.__subclasses__(kind)
    known = set(wanted)
    return [other for other in gc.get_objects() if type(other) in known]


_HOLDING = frozenset({"param_groups", "optimizer"})


def optimizers_of(parameters: Iterable[nn.Parameter]) -> list[Optimizer]:
    """Those of them that hold any of these weights."""
    wanted = {id(parameter) for parameter in parameters}
    return [optimizer for optimizer in live_optimizers() if holds(optimizer, wanted)]


def holds(optimizer: Optimizer, wanted: set[int]) -> bool:
    """Whether an optimizer holds any of the tensors with these ids."""
    return any(id(tensor) in wanted for tensor in held_by(optimizer))
