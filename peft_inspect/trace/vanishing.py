"""Gradients that are zero or not finite: where they become so, in a run that is measured operation by operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.records import Birth, GradientInfo, InspectionError, NonFinite, Source, Stationary
from peft_inspect.run.runs import backward, forward, own_copy
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.trace.births import Measured, measured
from peft_inspect.trace.values import perturb_zeros

if TYPE_CHECKING:
    from torch import Tensor

    from peft_inspect.records import Subject, Trace
    from peft_inspect.run.layers import AdapterLayers

_TINY = 1e-6  # gradients that may be what rounding leaves of zero
_GROWTH = 1e3  # what other weights make of such gradients, where they are


def zero_births(trace: Trace, subject: Subject, layers: AdapterLayers, inputs: Mapping[str, Any]) -> tuple[Birth, ...]:
    """Where the gradients of the layers that get zeros for good become zero, with no trained weight at zero."""
    weights = trained_weights(trace, layers, sorted(trace.zero_for_good))
    found: tuple[Birth, ...] = ()
    with suppress(InspectionError):  # a hook of the backward may stand in the way of writes in place: then nobody can say where
        found = measured(subject, layers, inputs, lambda run: run.births(weights, "zero"), perturb_zeros)
    return found


def trained_weights(trace: Trace, layers: AdapterLayers, paths: Iterable[str]) -> dict[str, list[Tensor]]:
    """The trained weights of these adapter layers."""
    wanted = set(paths)
    weights: dict[str, list[Tensor]] = {}
    for row in trace.structure.adapter_layers:
        if row.path in wanted and row.active:
            live = (layers.parameters[path] for path in row.parameters)
            weights.setdefault(row.path, []).extend(weight for weight in live if weight.requires_grad)
    return weights


def stationary(trace: Trace, subject: Subject, layers: AdapterLayers, inputs: Mapping[str, Any]) -> Stationary | None:
    """Whether no step can move anything as the weights are, though gradients are there with others; None where one can."""
    largest = largest_if_tiny(trace)
    if largest is None or (largest > 0 and not _grow(subject, inputs, largest)):
        return None
    births = trace.zero_births
    constants: tuple[Source, ...] = ()
    if largest == 0 and not births:
        weights = trained_weights(trace, layers, dict.fromkeys(row.layer for row in _trained(trace) if row.layer))
        with suppress(InspectionError):
            births, constants = measured(subject, layers, inputs, lambda run: (run.births(weights, "zero"), run.constants()))
    return Stationary(births, constants, constant_inputs(inputs), for_good=bool(trace.zero_for_good))


def _trained(trace: Trace) -> list[GradientInfo]:
    return [row for row in trace.gradients if row.layer is not None and row.state != "frozen" and row.arrived]


def largest_if_tiny(trace: Trace) -> float | None:
    """The norm of the largest gradient, where all of them are zero or may be what rounding leaves of it; else None."""
    rows = [row for row in trace.gradients if row.state != "frozen"]
    trained = _trained(trace)
    if not trained or trace.loss.is_sum or not trace.loss.has_graph or trace.underflow:
        return None
    for_good = all(birth.how == "cancellation" for birth in trace.zero_births) and bool(trace.zero_births)
    if trace.zero_for_good and not (for_good and trace.zero_for_good.issuperset(row.layer for row in trained if row.layer)):
        return None
    largest = largest_norm(rows)
    return None if any(row.state == "nonfinite" for row in rows) or largest > _TINY else largest


def largest_norm(rows: Iterable[GradientInfo]) -> float:
    """Of the gradients that arrived."""
    return max((row.norm or 0.0 for row in rows if row.arrived), default=0.0)


def constant_inputs(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Floating inputs that hold one and the same number throughout."""
    return tuple(name for name, value in inputs.items() if _is_constant(value))


def _is_constant(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 1 and bool((value == value.flatten()[0]).all())


def _grow(subject: Subject, inputs: Mapping[str, Any], largest: float) -> bool:
    """Whether gradients are there once no trained weight is zero: then those of the weights as they are were rounding."""
    with undisturbed(subject.model) as guard:
        perturb_zeros(subject.model, guard)
        backward(subject, forward(subject, own_copy(inputs)).tensor)
        norms = [float(weight.grad.float().norm()) for weight in subject.model.parameters() if weight.grad is not None]
    return grown(max(norms, default=0.0), largest)


def grown(norm: float, largest: float) -> bool:
    """Whether a gradient with other weights shows that the largest one as they are was what rounding leaves of zero."""
    return norm > _GROWTH * largest


def first_nonfinite(subject: Subject, layers: AdapterLayers, inputs: Mapping[str, Any], bad: Iterable[str]) -> NonFinite:
    """The first operation that makes NaN or inf out of finite values: in the forward, else on the way back to the parameters `bad`."""
    weights = {path: [layers.parameters[path]] for path in bad}
    found = None
    with suppress(InspectionError):  # a backward that raises on the way: the loss itself may say enough
        found = measured(subject, layers, inputs, lambda run: nonfinite_in(run, layers, weights), weighted=False)
    return found or NonFinite("", type(subject.model).__name__, "backward")


def nonfinite_in(run: Measured, layers: AdapterLayers, weights: Mapping[str, Iterable[Tensor]]) -> NonFinite | None:
    """The first operation of a measured run that makes NaN or inf out of finite values; None where it made none."""
    birth = run.first_unsound()
    births = (birth,) if birth is not None else run.births(weights, "nonfinite")
    if not births:
        return None
    first = births[0]
    kind = type(layers.modules[first.module or ""]).__name__
    return NonFinite(first.module or "", kind, "forward" if birth is not None else "backward", first.source, first.operation, first.factor)
