"""Passes that only numbers can answer: is a zero dead, is it underflow, does anything flow.

Each is run only when the first pass saw something that needs it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch.nn.functional import cross_entropy, nll_loss
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from peft_inspect.records import GradientInfo, LossTargets
from peft_inspect.reversible import hooked
from peft_inspect.run.runs import backward, drew, forward, own_copy
from peft_inspect.run.undisturbed import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

    from peft_inspect.records import AdapterLayerInfo, Structure, Subject
    from peft_inspect.run.tensors import WriteGuard

_PERTURBATION = 0.01  # the scale of an ordinary initialisation
_DRAWS = 8  # with a rate of one half, a layer is left out of all of them in one of 256 models
_PUSH = 0.1  # large enough to show in a loss of any size
_LOSS_SCALES = (2.0**8, 2.0**16, 2.0**24)  # what gradient scalers use, below and above


def all_zero(structure: Structure, gradients: Mapping[str, GradientInfo]) -> tuple[AdapterLayerInfo, ...]:
    """Adapter layers whose every trainable weight got a gradient of exact zeros, and nothing that implies it."""
    found = []
    for layer in structure.adapter_layers:
        states = [gradients[path].state for path in layer.parameters if path in gradients and gradients[path].state != "frozen"]
        if layer.active and states and all(state == "zero" for state in states):
            found.append(layer)
    return tuple(found)


def still_zero(subject: Subject, batch: Mapping[str, Any], layers: tuple[AdapterLayerInfo, ...]) -> frozenset[str]:
    """Of `layers`, those whose gradients stay exactly zero once no weight that is trained is zero.

    The first step moves what starts at zero: the B side of the adapters, and gates and projections that are trained
    beside them, which multiply everything before them by zero until then. A layer that stochastic depth has left out
    is in the next draw. Embeddings of trained tokens are none of them where the batch has no such token: it does not
    exercise them.
    """
    absent: dict[nn.Module, bool] = {}
    with undisturbed(subject.model) as guard, watching_tokens(absent):
        perturb_zeros(subject.model, guard)
        left = layers
        for draw in range(_DRAWS):
            backward(subject, forward(subject, own_copy(batch), weighted=True, draw=draw).tensor)
            left = tuple(layer for layer in left if not _any_gradient(subject.model, layer))
            if not left or not drew(draw):
                break
        return frozenset(layer.path for layer in left if not absent.get(subject.model.get_submodule(layer.path)))


def perturb_zeros(model: nn.Module, guard: WriteGuard | None = None) -> None:
    """Give small values to all that is trained and holds nothing but zeros, as the first step would; `guard` keeps what is written over."""
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            if guard is not None:
                guard.before_write(parameter)
            with torch.no_grad():
                parameter.add_(_PERTURBATION * torch.randn_like(parameter))


def moves_loss(subject: Subject, batch: Mapping[str, Any], layers: Iterable[AdapterLayerInfo]) -> bool:
    """Whether the loss changes when the weights of these adapter layers do: data flows, whatever the graph says."""

    def loss() -> float:
        with torch.enable_grad():
            return forward(subject, own_copy(batch), weighted=True).tensor.detach().float().item()

    with undisturbed(subject.model):
        before = loss()
    with undisturbed(subject.model) as guard, torch.no_grad():
        for path in {path for layer in layers for path in layer.parameters}:
            parameter = subject.model.get_parameter(path)
            guard.before_write(parameter)
            parameter.add_(_PUSH * torch.randn_like(parameter))
        after = loss()
    return after != before and not (math.isnan(after) and math.isnan(before))


def underflowing(subject: Subject, batch: Mapping[str, Any], layers: tuple[AdapterLayerInfo, ...]) -> frozenset[str]:
    """Of `layers`, those whose gradients appear when the loss is scaled up, as a gradient scaler would."""
    found: set[str] = set()
    for scale in _LOSS_SCALES:
        left = [layer for layer in layers if layer.path not in found]
        if not left:
            break
        with undisturbed(subject.model):
            backward(subject, forward(subject, own_copy(batch)).tensor.float() * scale)
            found |= {layer.path for layer in left if _any_gradient(subject.model, layer)}
    return frozenset(found)


def targets_given(subject: Subject, batch: Mapping[str, Any]) -> LossTargets | None:
    """The targets of the cross entropies of one run; None where there are none."""
    given = CrossEntropies()
    with undisturbed(subject.model), given:
        forward(subject, own_copy(batch))
    return given.found()


class CrossEntropies(TorchFunctionMode):
    """Counts the class targets of every cross entropy, and those that are not its ignore index."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.supervised, self.ignore_index = 0, 0, -100

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (cross_entropy, nll_loss):
            given = inspect.signature(func).bind(*args, **(kwargs or {}))
            given.apply_defaults()
            target, self.ignore_index = given.arguments["target"], given.arguments["ignore_index"]
            if not target.is_floating_point():
                self.total += target.numel()
                self.supervised += int((target != self.ignore_index).sum())
        return func(*args, **(kwargs or {}))

    def found(self) -> LossTargets | None:
        """What was counted; None where there was no cross entropy with class targets."""
        return LossTargets(self.total, self.supervised, self.ignore_index) if self.total else None


def watching_tokens(absent: dict[nn.Module, bool]) -> hooked:
    """Collects the embeddings with trained tokens that are given ids, and whether none of these tokens is ever among them."""

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, TrainableTokensLayer) and args and not args[0].is_floating_point():
            trained = {token for indices in module.token_indices.values() for token in indices}
            absent[module] = absent.get(module, True) and trained.isdisjoint(args[0].flatten().tolist())

    return hooked(partial(register_module_forward_pre_hook, before))


def _any_gradient(model: nn.Module, layer: AdapterLayerInfo) -> bool:
    gradients = [model.get_parameter(path).grad for path in layer.parameters]
    return any(gradient is not None and bool(gradient.any()) for gradient in gradients)
