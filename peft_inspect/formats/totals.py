"""Sums that several formats show."""

from __future__ import annotations

from dataclasses import dataclass

from peft_inspect.records import GradientInfo, Structure, Trace


@dataclass(frozen=True)
class ParameterTotals:
    """Numbers of values: in all parameters, in the trainable ones, in the adapters' own. A shared tensor counts once."""

    total: int
    trainable: int
    adapter: int


def parameter_totals(structure: Structure) -> ParameterTotals:
    """The totals equal `sum(p.numel() for p in model.parameters())`."""
    parameters = structure.parameters
    return ParameterTotals(
        total=sum(parameter.numel for parameter in parameters),
        trainable=sum(parameter.numel for parameter in parameters if parameter.requires_grad),
        adapter=sum(parameter.numel for parameter in parameters if parameter.role == "adapter"),
    )


@dataclass(frozen=True)
class GradientTotals:
    """Numbers of adapter parameters, by what the backward gave them, and of the other trainable parameters."""

    total: int
    with_grad: int
    zero: int
    nonfinite: int
    frozen: int
    other: int
    other_with_grad: int

    @property
    def without_grad(self) -> int:
        """None, NaN, infinite or frozen."""
        return self.total - self.with_grad


def gradient_totals(trace: Trace) -> GradientTotals:
    """Count the parameters of all adapters, active or not. The exact zeros that initialisation implies count as gradients."""
    adapter: list[GradientInfo] = []
    other: list[GradientInfo] = []
    for gradient in trace.gradients:
        (other if gradient.layer is None else adapter).append(gradient)
    return GradientTotals(
        total=len(adapter),
        with_grad=sum(gradient.arrived for gradient in adapter),
        zero=sum(gradient.state == "zero" for gradient in adapter),
        nonfinite=sum(gradient.state == "nonfinite" for gradient in adapter),
        frozen=sum(gradient.state == "frozen" for gradient in adapter),
        other=len(other),
        other_with_grad=sum(gradient.arrived for gradient in other),
    )


def idle_parameters(trace: Trace) -> int:
    """Adapter parameters that wait for a gradient in layers that never ran."""
    idle = {layer.path for layer in trace.structure.adapter_layers if not trace.calls_of.get(layer.path)}
    return sum(gradient.layer in idle and gradient.state == "none" for gradient in trace.gradients)
