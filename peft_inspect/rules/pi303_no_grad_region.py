"""Adapter layers ran, or their outputs were used, with gradients switched off.

`torch.no_grad`, `torch.inference_mode` or `set_grad_enabled(False)` is active around them: a
helper left over from the days of a frozen encoder, or `generate()`, which runs without
gradients. A reference pass beside the trained pass is no fault, nor is a copy of the trained model that serves as reference.

Take the switch away from the line that the finding shows, or switch by what is trained:
`torch.set_grad_enabled(self.tune_encoder)`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from peft_inspect.records import CallInfo, Finding, GradRegion, Remedy, Severity, Source, Unexplained
from peft_inspect.rules.examples import squared_output, text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import at_line, counted


def check(left: Unexplained) -> Iterator[Finding]:
    """Dead layers whose every pass ran with gradients off, or whose output is used so, grouped by the line of the switch."""
    trace = left.trace
    places: dict[tuple[Source | None, str], list[str]] = defaultdict(list)
    dead = {layer.path for layer in left.dead if trace.structure.trainable(layer)}
    for layer in sorted(dead):
        calls = [call for call in trace.calls_of.get(layer, ()) if call.phase == "forward"]
        regions = [] if any(call.trains for call in calls) else _switched_off(calls)
        if regions:
            places[regions[-1].source, regions[-1].kind].append(layer)
    for cut in trace.cuts:
        if cut.kind == "no-grad-region":
            places[cut.source, "no_grad"] += [layer for layer in cut.layers if layer in dead]
    for (source, kind), layers in places.items():
        if layers:
            switch = "before the forward began" if kind == "before" else f"by {kind}"
            yield RULE.finding(
                f"{counted(len(set(layers)), 'adapter layer')} ran with gradients switched off {switch}",
                layers,
                source=source,
                facts={"switch": kind},
                fix=at_line(
                    source,
                    f"keep gradients on {'at this line' if source else 'in the pass that is trained'}; switch them off only where no "
                    "adapter is trained",
                ),
                remedy=Remedy.GRADIENTS_ON,
            )


def _switched_off(calls: list[CallInfo]) -> list[GradRegion]:
    """Where a switch was off: in the passes that the loss uses; in any pass, where all of them ran so."""
    off = [(call, call.region) for call in calls if call.region is not None and call.region.inputs_require_grad is None]
    used = [region for call, region in off if call.reaches_loss is not False]
    return used or [region for _, region in off if len(off) == len(calls)]


def broken() -> Example:
    """A helper from the days of a frozen backbone."""
    import torch

    return _probe(torch.no_grad)


def fixed() -> Example:
    """The helper keeps the graph."""
    from contextlib import nullcontext

    return _probe(nullcontext)


def _probe(mode: Callable[[], AbstractContextManager[Any]]) -> Example:
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
            self.head = nn.Linear(64, 2)

        def features(self, input_ids: torch.Tensor) -> torch.Tensor:
            with mode():
                return self.backbone(input_ids=input_ids).logits.mean(dim=1)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.features(input_ids))

    return Example(Probe(), {"input_ids": text_batch()["input_ids"]}, loss=squared_output)


RULE = Rule(
    "PI303",
    "no-grad-region",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.MODE,
    gives_way_to=("PI207",),
    because="While another adapter should be active, this one may run for reference.",
)
