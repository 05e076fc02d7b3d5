"""Adapter layers got no gradient, and no other rule explains it.

They are trainable and they ran; the graph does not connect them to the loss. The finding says
what was seen. A custom autograd function that returns no gradient is one way to get here.

If you find the cause, please report it: it deserves a rule of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Severity, Trace, modules_of
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted


def check(trace: Trace) -> Iterator[Finding]:
    """Whatever is left of the dead layers that ran."""
    layers = [layer for layer in trace.dead if trace.structure.trainable(layer) and trace.calls_of.get(layer.path)]
    if layers:
        calls = [call for layer in layers for call in trace.calls_of[layer.path]]
        yield RULE.finding(
            f"{counted(len(modules_of(layers)), 'adapter layer')} ran and got no gradient, for a reason that no rule names",
            modules_of(layers),
            facts={
                "calls": len(calls),
                "calls_with_gradients_on": sum(call.region is None for call in calls),
                "outputs_requiring_grad": sum(call.output_requires_grad for call in calls),
                "loss_has_graph": trace.loss.has_graph,
            },
            fix="follow the output of these layers to the loss: something between them returns no gradient",
        )


def broken() -> Example:
    """A custom autograd function that forgets its gradient."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Forgetful(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, *grad: Any) -> None:
            return None

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)
            self.out = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(Forgetful.apply(self.inner(x)))

    return Example(get_peft_model(Scaled(), LoraConfig(target_modules=["inner", "out"])), {"x": torch.randn(2, 8)})


def fixed() -> Example:
    """The function returns its gradient."""
    from typing import Any

    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, *grad: Any) -> torch.Tensor:
            doubled: torch.Tensor = grad[0] * 2
            return doubled

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)
            self.out = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(Doubled.apply(self.inner(x)))

    return Example(get_peft_model(Scaled(), LoraConfig(target_modules=["inner", "out"])), {"x": torch.randn(2, 8)})


RULE = Rule(
    "PI309",
    "no-gradient",
    Severity.ERROR,
    over=Trace,
    check=check,
    broken=broken,
    fixed=fixed,
    explained_by=(
        "PI201",
        "PI202",
        "PI203",
        "PI204",
        "PI205",
        "PI206",
        "PI207",
        "PI208",
        "PI301",
        "PI302",
        "PI303",
        "PI304",
        "PI305",
        "PI306",
        "PI307",
        "PI308",
    ),
)
