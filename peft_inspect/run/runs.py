"""One forward and the loss it ends in, and one backward."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import get_gradient_edge

from peft_inspect.outside import from_outside
from peft_inspect.records import SUM_OF, InspectionError
from peft_inspect.run.as_device import as_on_device
from peft_inspect.run.failures import explained
from peft_inspect.run.graph import is_opaque, leaves, upstream
from peft_inspect.run.weightless import WeightlessError, running
from peft_inspect.structure.source.lines import boundary
from peft_inspect.walk import parameters_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from peft_inspect.records import Subject


@dataclass(frozen=True)
class Loss:
    """The scalar that is trained, and where it came from."""

    tensor: Tensor
    origin: str


def runnable(subject: Subject) -> AbstractContextManager[object]:
    """What has to be active while the model runs: nothing for real weights."""
    return running() if subject.weights == "none" else nullcontext()


def own_copy(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch of one run: its own tensors, so that a forward that writes into its inputs disturbs nobody."""
    return {name: value.detach().clone() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def forward(subject: Subject, batch: Mapping[str, Any], *, weighted: bool = False, draw: int = 0) -> Loss:
    """One forward, up to the loss.

    Args:
        subject: what runs.
        batch: keyword inputs of this run.
        weighted: where outputs are summed for want of a loss, give each element a weight of its own: the plain sum over
            what a layer norm returns is the same number whatever goes in, and its gradient is zero.
        draw: which random numbers the run gets; all runs get the same ones, but for those that ask what chance has to do with it.

    Raises:
        InspectionError: the forward or the loss raised; names the module it happened in and shows the user's frames.
    """
    _seed(draw)
    torch.clear_autocast_cache()  # inside an autocast of the caller it keeps casts of a run before this one, without their graph
    try:
        with warnings.catch_warnings(), _uncompiled(), as_on_device(subject):
            warnings.simplefilter("ignore")  # what a run warns of, the findings say with their cause
            return _forward(subject, batch, weighted=weighted)
    except Exception as error:
        if from_outside(error) or (isinstance(error, InspectionError) and not isinstance(error, WeightlessError)):
            raise
        raise explained(error, subject.model) from error


def _uncompiled() -> AbstractContextManager[object]:
    """What `torch.compile` was applied to runs as it is written: a compiled graph hides its modules, and the watching with it."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and importing it takes seconds
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def _seed(draw: int) -> None:
    """Every run draws the same random numbers, so that the same input gives the same report; `undisturbed` puts them back."""
    torch.manual_seed(draw)
    random.seed(draw)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(draw)


def drew(draw: int) -> bool:
    """Whether the run that got this draw has taken random numbers from it: then another draw can come out differently."""
    after = _generators()
    _seed(draw)
    return after != _generators()


def _generators() -> tuple[object, ...]:
    """Where the generators stand that `_seed` starts."""
    states = (torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ()))
    numpy = sys.modules["numpy"].random.get_state(legacy=False)["state"] if "numpy" in sys.modules else {}
    return (*(state.numpy().tobytes() for state in states), random.getstate(), *map(str, numpy.values()))


def _forward(subject: Subject, batch: Mapping[str, Any], *, weighted: bool) -> Loss:
    """The function every run starts in: no frame above it belongs to the inspected program."""
    if subject.loss is not None:
        return Loss(_scalar(subject.loss(subject.model, batch), "the loss callable"), "the loss callable")
    output = subject.model(**batch)
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, torch.Tensor):
        return Loss(_scalar(own, "output.loss"), "output.loss")
    if isinstance(output, torch.Tensor) and output.dim() == 0 and output.is_floating_point():
        return Loss(output, "the output")
    floating = [tensor for tensor in _tensors(output) if tensor.is_floating_point()]
    if not floating:
        raise InspectionError(
            f"nothing to train on: the forward returned {type(output).__name__} without a loss and without a floating tensor. "
            "Pass labels in the batch, or --loss file.py:loss"
        )
    values = [tensor.float().clamp(min=_MASKED) for tensor in floating]
    sums = [(tensor * _weights(tensor)).sum() if weighted else tensor.sum() for tensor in values]
    return Loss(torch.stack(sums).sum(), f"{SUM_OF} {len(floating)} floating outputs")


boundary(_forward)
_MASKED = -1e30  # masks write the lowest number there is, or minus infinity; summed, they would be all there is of the loss


def _weights(tensor: Tensor) -> Tensor:
    """A number between -1 and 1 for every element, no two neighbours alike."""
    return torch.arange(tensor.numel(), device=tensor.device).cos().reshape(tensor.shape)


def _scalar(value: Any, what: str) -> Tensor:
    if not isinstance(value, torch.Tensor):
        raise InspectionError(f"{what} returned {type(value).__name__}; it must return the tensor that is trained")
    if value.numel() != 1:
        raise InspectionError(f"{what} has shape {list(value.shape)}; it must be one number: reduce it with .mean() or .sum()")
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def backward(subject: Subject, loss: Tensor) -> set[int]:
    """Gradients of `loss`; the `id` of every leaf tensor that it is connected to.

    Without weights the autograd graph itself answers, and no backward is run unless a node computes
    in Python what it passes on (reentrant checkpointing does).

    Raises:
        InspectionError: the backward raised.
    """
    if not loss.requires_grad:
        return set()
    if subject.weights == "none":
        nodes = upstream([loss.grad_fn])
        if not is_opaque(nodes):
            return leaves(nodes)
    try:
        # a tensor would be handed to function modes first, which are off for what they handle: for all that is run again inside
        with as_on_device(subject):  # checkpointed blocks run again
            torch.autograd.backward(get_gradient_edge(loss), torch.ones_like(loss))
    except Exception as error:
        if from_outside(error):
            raise
        raise explained(error, subject.model, "backward") from error
    return {id(parameter) for parameter in parameters_of(subject.model) if parameter.grad is not None}
