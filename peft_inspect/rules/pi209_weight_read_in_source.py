"""The forward around an adapter layer reads its `.weight` on a path that this run did not take.

Another device, another shape or a fused kernel takes that path, and there the adapter is
skipped: what trains here may not train there. Mamba layers do so with their CUDA kernels.

Check on the device you train on, without weights by `--as-device cuda`, or take the module out of `target_modules`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from peft_inspect.records import Finding, Severity, Source, Trace
from peft_inspect.rules.examples import squared_output
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted


def check(trace: Trace) -> Iterator[Finding]:
    """Reads in source that this run did not make, grouped by their line."""
    places: dict[Source, list[str]] = defaultdict(list)
    for read in trace.weight_reads:
        places[read.source].append(read.layer)
    for source, layers in places.items():
        yield RULE.finding(
            f"the .weight of {counted(len(layers), 'adapter layer')} is read at a line that this run did not take: on that path the adapter is skipped",
            layers,
            source=source,
            fix="run the check on the device and with the kernels you train with, or take the module out of target_modules",
        )


def broken() -> Example:
    """A fused path for large inputs."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[0] > 1000:
                return x @ self.out.weight.T
            return self.out(x)

    return Example(get_peft_model(Mixer(), LoraConfig(target_modules=["out"])), {"x": torch.randn(2, 8)}, loss=squared_output)


def fixed() -> Example:
    """Every path calls the module; its dtype may be asked for."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x.to(self.out.weight.dtype))

    return Example(get_peft_model(Mixer(), LoraConfig(target_modules=["out"])), {"x": torch.randn(2, 8)}, loss=squared_output)


RULE = Rule(
    "PI209",
    "weight-read-in-source",
    Severity.NOTE,
    over=Trace,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI201",),
    because="What this run did read is no path that it did not take.",
)
