"""Another object does the work of the modules that carry adapters.

A deep copy taken before the wrapping, or a second instance of the same class, is what the
forward calls, or a module that is tied to the adapted one by its weight. The adapted modules sit beside it and never run. A plain reference to a
container would have been fine: PEFT replaces the layers inside it in place.

Take the module from the wrapped model, without copying.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from peft_inspect.records import Finding, Remedy, Severity, Unexplained, by_place
from peft_inspect.rules.examples import squared_output
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import counted


def check(left: Unexplained) -> Iterator[Finding]:
    """Copies that ran in the place of dead layers, grouped by the function that calls them."""
    trace = left.trace
    dead = {layer.path for layer in left.dead}
    for source, of_place in by_place([copy for copy in trace.copies if dead.intersection(copy.layers)]):
        first = of_place[0]
        layers = [layer for copy in of_place for layer in copy.layers]
        what = {
            True: "a copy with the same base weights",
            False: "another instance with other weights",
            None: "another object of the same shape",
        }
        how = "a module tied to it" if first.tied else what[first.same_values]
        where = f"{first.copy!r}" if first.copy else "held outside the model's modules"
        others = f" and {len(of_place) - 1} more" if len(of_place) > 1 else ""
        yield RULE.finding(
            f"{first.original!r}{others} with {counted(len(layers), 'adapter layer')} never ran: {how} ran in its place ({first.type}, {where})",
            layers,
            source=source,
            facts={
                "original": [copy.original for copy in of_place],
                "copy": [copy.copy for copy in of_place],
                "same_values": first.same_values,
            },
            fix=f"target {_last_name(first.copy)!r} instead, the module that runs: tied modules share a weight, and not the adapter on it"
            if first.tied and first.copy
            else "call the module of the wrapped model itself, without copying it",
            remedy=Remedy.THROUGH_ORIGINAL,
        )


def _last_name(path: str) -> str:
    return path.rpartition(".")[2]


def broken() -> Example:
    """The head keeps a deep copy of the backbone, made before the wrapping."""
    import copy

    return _classifier(copy.deepcopy)


def fixed() -> Example:
    """The head keeps a reference to the container, in which PEFT swaps the layers."""
    return _classifier(lambda backbone: backbone)


def _classifier(kept: Callable[[Any], Any]) -> Example:
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            backbone = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
            self.encoder = kept(backbone)
            self.backbone = get_peft_model(backbone, LoraConfig(target_modules=["0", "2"]))
            self.head = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.encoder(x))

    return Example(Classifier(), {"x": torch.randn(2, 8)}, loss=squared_output)


RULE = Rule(
    "PI203",
    "unadapted-copy-called",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.CAUSE,
    gives_way_to=("PI201", "PI202"),
    because="A copy that shares weights or layers with the original is no other object.",
)
