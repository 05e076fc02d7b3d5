"""One forward and one backward, watched; more passes only where the first shows a fault that they can explain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from peft_inspect.batch import make_batch
from peft_inspect.records import BatchInfo, GradientInfo, LossInfo, Structure, Subject, Trace
from peft_inspect.run.gradients import read_gradients, zeros_at_init
from peft_inspect.run.graph import let_go
from peft_inspect.run.layer_states import LayerStates
from peft_inspect.run.layers import AdapterLayers
from peft_inspect.run.runs import backward, forward, own_copy, runnable
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.run.updates import rehearsed
from peft_inspect.run.weightless import materialise
from peft_inspect.structure.layer_drop import layer_drop
from peft_inspect.structure.runtimes import require_own_pass
from peft_inspect.structure.source.conditions import waiting
from peft_inspect.structure.source.reads import weight_reads
from peft_inspect.trace.calls import Calls
from peft_inspect.trace.copies import find_copies, references
from peft_inspect.trace.following import followed
from peft_inspect.trace.grad_mode import GradSwitches
from peft_inspect.trace.operations import Operations, WeightReads
from peft_inspect.trace.stand_ins import replaced_layers, stand_ins
from peft_inspect.trace.threads import following_threads, propagated_from
from peft_inspect.trace.values import all_zero, still_zero, targets_given, underflowing
from peft_inspect.trace.vanishing import first_nonfinite, stationary, zero_births

Step = Callable[[str], None]


@dataclass(frozen=True)
class Inputs:
    """The batch of one inspection; every pass gets the same one."""

    batch: Mapping[str, Any]
    info: BatchInfo


def run_trace(subject: Subject, structure: Structure, step: Step = lambda _: None) -> Trace:
    """Run one batch through the model and record what the rules judge.

    A batch that is made here is from then on the subject's, so that the trials of fixes run on the same one.

    Raises:
        InspectionError: no batch could be made, the forward raised, or a runtime owns the model's step.
    """
    require_own_pass(subject.model)
    if subject.weights == "none":
        materialise(subject.model)
    step("making a batch")
    inputs = Inputs(*make_batch(subject))
    subject.batch = inputs.batch
    layers = AdapterLayers(subject.model, structure)
    with runnable(subject):
        step("forward and backward")
        trace = _watched(subject, structure, layers, inputs)
        if structure.weights != "none":
            trace = _measured(trace, subject, layers, inputs, step)
        if needs_following(trace):
            step("following the data flow")
            trace = followed(trace, subject, layers, inputs.batch)
        if wanted := replaced_layers(trace):
            step("looking for what works in the place of layers")
            trace = stand_ins(trace, wanted, subject, layers, inputs.batch)
    return trace


class Watchers:
    """What watches one step, whoever drives it: the tool itself, or the user's own program.

    `calls` and `reads` have to be active while the step runs, and `calls.phase` has to follow it; `trace` is for its end.
    """

    def __init__(self, structure: Structure, layers: AdapterLayers, switches: GradSwitches, states: LayerStates | None = None) -> None:
        self.structure = structure
        self.layers = layers
        self.calls = Calls(layers, switches, states)
        self.reads = WeightReads(layers, self.calls)

    def trace(self, batch: BatchInfo, loss: LossInfo, gradients: tuple[GradientInfo, ...]) -> Trace:
        """What was seen of the step."""
        uses = self.reads.found()
        trace = Trace(
            structure=self.structure,
            batch=batch,
            loss=loss,
            gradients=gradients,
            calls=self.calls.found(),
            executed=self.calls.executed(),
            weight_uses=uses,
            base_calls=self.calls.base_calls(),
            switched_since=self.calls.switched_since(),
            weight_reads=weight_reads(self.layers, self.reads.read),
        )
        dead = frozenset(layer.path for layer in trace.dead)
        idle = [layer.path for layer in trace.dead if not trace.calls_of.get(layer.path) and trace.topmost_idle(layer.path) == layer.path]
        copies = find_copies(self.layers, self.calls, dead)
        waits = waiting(self.layers.modules[""], idle, trace.executed)
        uncalled = dict.fromkeys(trace.topmost_idle(layer.path) for layer in trace.dead if not trace.calls_of.get(layer.path))
        drops = {path: setting for path in uncalled if (setting := layer_drop(self.layers.modules, path)) is not None}
        return replace(trace, copies=copies, references=references(self.layers, trace), waiting=waits, layer_drop=drops)


@let_go()
def _watched(subject: Subject, structure: Structure, layers: AdapterLayers, inputs: Inputs) -> Trace:
    """The first pass. What it costs is what a healthy model pays."""
    switches = GradSwitches()
    states = LayerStates() if subject.changes is None else subject.changes.states
    states.step_begins()
    step = Watchers(structure, layers, switches, states)
    with undisturbed(subject.model) as guard:
        with switches.watching(), step.calls.watching():
            with Operations(guard, step.reads) as operations, following_threads(propagated_from(switches, step.calls, operations)):
                step.calls.operations = operations
                loss = forward(subject, own_copy(inputs.batch))
            step.calls.phase, step.calls.operations = "backward", None
            connected = backward(subject, loss.tensor)
        values = structure.weights != "none"
        gradients = read_gradients(layers.parameters, structure, connected, values=values)
        value = loss.tensor.detach().float().item() if values else None
        info = LossInfo(value, loss.tensor.grad_fn is not None, origin=loss.origin)
        update = rehearsed(subject.optimizer, structure, layers.parameters, gradients) if values else None
    return replace(step.trace(inputs.info, info, gradients), update=update)


def needs_following(trace: Trace) -> bool:
    """Whether a dead layer ran with gradients on and in working order, or a trained pass must be told from a reference pass.

    Or what reads its weight does so for nothing: then the read is not what keeps it from training.
    """
    for layer in trace.dead:
        if layer.path in trace.read_outside and trace.structure.trainable(layer):
            return True
        calls = trace.calls_of.get(layer.path, ())
        on = [call for call in calls if call.trains]
        if any(call.enabled and not call.merged and layer.adapter in call.active for call in on) and trace.structure.trainable(layer):
            return True
        if on and len(on) < len(calls):
            return True
    return bool(trace.zero_for_good)


def _measured(trace: Trace, subject: Subject, layers: AdapterLayers, inputs: Inputs, step: Step) -> Trace:
    """Passes that tell zeros and non-finite values; none for a healthy model."""
    zero = all_zero(trace.structure, trace.gradient)
    if zero:
        step("perturbing zero factors")
        dead = still_zero(subject, inputs.batch, zero)
        candidates = tuple(layer for layer in zero if layer.path in dead)  # autocast computes in half precision beside float32 weights
        underflow = underflowing(subject, inputs.batch, candidates) if candidates else frozenset()
        awake = {layer.path for layer in zero} - dead
        trace = replace(trace, gradients=zeros_at_init(trace.gradients, awake), dead_after_perturbing=dead, underflow=underflow)
    loss_is_finite = trace.loss.value is None or math.isfinite(trace.loss.value)
    if not loss_is_finite or any(row.state == "nonfinite" for row in trace.gradients):
        step("looking for the first non-finite value")
        bad = [row.path for row in trace.gradients if row.state == "nonfinite"]
        trace = replace(trace, nonfinite=first_nonfinite(subject, layers, inputs.batch, bad))
    if trace.dead_after_perturbing or trace.nonfinite:
        trace = replace(trace, targets=targets_given(subject, inputs.batch))
    if trace.zero_for_good:
        step("looking for where gradients become zero")
        trace = replace(trace, zero_births=zero_births(trace, subject, layers, inputs.batch))
    return replace(trace, stationary=stationary(trace, subject, layers, inputs.batch))
