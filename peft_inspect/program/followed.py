"""A further step of the program, looked at more closely: at the height of its data flow, and where need be with its values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.records import Birth, LossInfo, NonFinite, Source, Stationary, Subject, Trace
from peft_inspect.rules import Rule
from peft_inspect.run.graph import leaves, upstream
from peft_inspect.trace.births import Measured
from peft_inspect.trace.flow import DataFlow, flattened
from peft_inspect.trace.following import Following, concluded
from peft_inspect.trace.grad_mode import GradSwitches, opened, replaced_checkpoint
from peft_inspect.trace.measured_flow import MeasuredFlow
from peft_inspect.trace.modes import outermost_function
from peft_inspect.trace.values import CrossEntropies
from peft_inspect.trace.vanishing import constant_inputs, largest_if_tiny, nonfinite_in, trained_weights
from peft_inspect.trace.watching import needs_following

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peft_inspect.reversible import Reversible
    from peft_inspect.run.layers import AdapterLayers
    from peft_inspect.trace.calls import Calls


@dataclass(frozen=True)
class Manner:
    """How a further step of one model is looked at, and what of the earlier ones it is to explain."""

    trace: Trace
    measured: bool = False  # values as well as flow
    perturbed: bool = False  # nothing that is trained begins it at zero
    scale: float = 1.0  # of the loss


@dataclass(frozen=True)
class Values:
    """What the values of a measured step show."""

    births: tuple[Birth, ...]
    constants: tuple[Source, ...]
    nonfinite: NonFinite | None
    halves: bool  # something was computed in half precision
    constant_inputs: tuple[str, ...]


class FollowedStep:
    """The watchers of one such step of one model."""

    def __init__(self, model: nn.Module, layers: AdapterLayers, calls: Calls, switches: GradSwitches, manner: Manner, args: Any) -> None:
        tensors = [value for value in flattened((args,)) if isinstance(value, torch.Tensor)]
        known = [*model.parameters(), *model.buffers(), *tensors]
        self._model, self._layers, self._calls, self.manner = model, layers, calls, manner
        weights = layers.base_weights
        self.flow = MeasuredFlow(known, switches, calls, weights) if manner.measured else DataFlow(known, switches, weights)
        self._following = Following(calls, self.flow)
        self._targets = CrossEntropies()
        self._losses: list[Tensor] = []
        self.inputs: Mapping[str, Any] = {}

    def begin(self) -> list[Reversible[Any]]:
        """What is to be open until the step is over."""
        self._following.begin()
        patches = [replaced_checkpoint(opened), self._following.functions.watching(), self.flow.making()]
        if isinstance(self.flow, MeasuredFlow):
            patches.append(self.flow.applying())
        return [*patches, outermost_function(self.flow), outermost_function(self._targets)]

    def forward_ended(self, losses: Iterable[Tensor]) -> set[int]:
        """Before the backward of these losses; the ids of the weights that they are connected to."""
        self._losses += losses
        self._following.forward_ended()
        for loss in losses:
            self._following.functions.awaiting(loss)
            if isinstance(self.flow, MeasuredFlow):
                self.flow.watch_backward(loss)
        return leaves(upstream([loss.grad_fn for loss in losses]))

    def again(self, tensors: Iterable[Tensor]) -> None:
        """A backward within that backward: a checkpointed block has run again."""
        self._following.functions.again += tensors

    def ended(self) -> None:
        """Look no longer."""
        if isinstance(self.flow, MeasuredFlow):
            self.flow.let_go()

    def values(self) -> Values | None:
        """What its values show; None where they were not looked at, or it came to no backward."""
        if not isinstance(self.flow, MeasuredFlow) or not self._losses:
            return None
        trace, subject = self.manner.trace, Subject(self._model, type(self._model).__name__)
        run = Measured(subject, self._layers, self.flow, self._calls, self.inputs, self._losses[-1])
        zero = trained_weights(trace, self._layers, sorted(trace.zero_for_good) or [row.layer for row in trace.gradients if row.layer])
        bad = {row.path: [self._layers.parameters[row.path]] for row in trace.gradients if row.state == "nonfinite"}
        nonfinite = nonfinite_in(run, self._layers, bad) if bad else None
        return Values(run.births(zero, "zero"), run.constants(), nonfinite, self.flow.halves, constant_inputs(self.inputs))

    def explained(self, trace: Trace, values: Values | None, first: Values | None) -> Trace:
        """The trace with what the values and the data flow of this step show.

        `first` are the values of the step that was measured first, where in this one no trained weight began at zero.
        """
        if values is not None:
            births = tuple(birth for birth in values.births if trace.zero_for_good.intersection(birth.layers))
            trace = replace(trace, zero_births=births, nonfinite=values.nonfinite)
        if has_wrong_values(trace):
            trace = replace(trace, targets=self._targets.found())
        if self._losses and needs_following(trace):
            trace = concluded(trace, self._layers, self._following.seen(*self._losses), None)
        if first is not None and largest_if_tiny(trace) == 0.0:
            births = trace.zero_births or first.births
            stays = bool(trace.zero_for_good)
            trace = replace(trace, stationary=Stationary(births, first.constants, first.constant_inputs, for_good=stays))
        return trace


def is_nonfinite(trace: Trace) -> bool:
    """Whether a gradient or the loss is not finite."""
    loss = trace.loss.value
    return (loss is not None and not math.isfinite(loss)) or any(row.state == "nonfinite" for row in trace.gradients)


def has_wrong_values(trace: Trace) -> bool:
    """Whether gradients arrive and are zero, or not finite."""
    return bool(trace.zero_for_good) or is_nonfinite(trace)


def scale_for(loss: LossInfo) -> float:
    """What makes of a loss what a gradient scaler begins with makes of a loss of one."""
    return 2.0**16 / max(abs(loss.value or 1.0), 1e-5)


_BY_CALLS = ("PI2", "PI303", "PI304", "PI305", "PI306", "PI307", "PI308", "PI319")


def of_gradients(rules: Iterable[Rule[Any]], trace: Trace) -> list[Rule[Any]]:
    """For a step in compiled code: the rules, with those skipped that judge by more than gradients.

    Where a part of the adapters gets nothing, or the zeros that a compiled graph gives instead, only calls tell whether it should.
    """
    some = any(row.arrived and row.state != "zero" for row in trace.gradients if row.layer)
    skipped = (*_BY_CALLS, "PI309", "PI310") if some else _BY_CALLS
    reason = "the step ran compiled, and nothing in it was watched"
    return [replace(rule, skip=lambda _: reason) if rule.code.startswith(skipped) else rule for rule in rules]
