"""A whole branch that carries adapters did not run for this batch.

Nothing is wrong with the adapters: the tower, encoder or block around them was not executed,
because the batch lacks the input it works on, or because the forward does not use it. So it is
with a single layer that the code calls only under a condition on its inputs; the finding shows
that line. They are *not exercised*, which is not the same as broken.

Check with a batch that has that input, scope `target_modules` to the branch you train, or
expect unused parameters (DDP wants `find_unused_parameters`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from peft_inspect.records import AdapterLayerInfo, Finding, Origin, Severity, Trace, Unexplained, modules_of
from peft_inspect.rules.examples import squared_output
from peft_inspect.rules.experts import expert_of
from peft_inspect.rules.rule import Example, Rule, Tier
from peft_inspect.rules.words import counted

# parameters of a forward that say how to run rather than on what
_SETTING = re.compile(
    r"labels|(output|return|use|past|cache|position|logits|num|interpolate)_.*|.*_(mask|layer|strategy|embeds|outputs|cache)"
)


def check(left: Unexplained) -> Iterator[Finding]:
    """Dead layers without a call, grouped by the outermost module that did not run."""
    trace = left.trace
    copied = {path for stand_in in trace.stand_ins if stand_in.how != "beside" for path in stand_in.layers}
    branches: dict[str, list[AdapterLayerInfo]] = defaultdict(list)
    for layer in left.dead:
        idle = trace.topmost_idle(layer.path)
        waits = idle != layer.path or idle in trace.waiting
        if not trace.calls_of.get(layer.path) and waits and layer.path not in copied and expert_of(trace.structure, idle) is None:
            branches[idle].append(layer)
    dropped = {branch for branch in branches if _has_running_sibling(trace, branch)}
    whole = [branch for branch in branches if branch not in dropped]
    for group, severity in ((whole, Severity.WARNING), (sorted(dropped), Severity.NOTE)):
        layers = [layer for branch in group for layer in branches[branch]]
        if layers:
            missing = sorted(set(trace.batch.accepted) - set(trace.batch.inputs))
            names = ", ".join(f"{branch!r}" for branch in group[:3]) + (f" and {len(group) - 3} more" if len(group) > 3 else "")
            has = f"; the batch has {', '.join(trace.batch.inputs)}" if trace.batch.inputs else ""
            lacks = ", ".join(name for name in trace.batch.accepted if name in missing and not _SETTING.fullmatch(name))
            has += f" and lacks {lacks}" if has and lacks and severity is Severity.WARNING else ""
            drop = next((trace.layer_drop[branch] for branch in group if branch in trace.layer_drop), None)
            yield RULE.finding(
                f"{names} with {counted(len(modules_of(layers)), 'adapter layer')} "
                + (_dropped(drop) if drop else f"did not run for this batch: not exercised{has}"),
                modules_of(layers),
                facts={"branches": group, "inputs": list(trace.batch.inputs), "not_given": missing},
                source=next((trace.waiting[branch] for branch in group if branch in trace.waiting), None),
                origin=Origin("model-config", (drop[0], f"encoder_{drop[0]}", f"decoder_{drop[0]}"), exact=True) if drop else None,
                fix=_fix(trace, group, drop),
                severity=severity,
            )


def _dropped(drop: tuple[str, float]) -> str:
    name, value = drop
    return f"did not run: {name}={value:g} leaves {'every block' if value >= 1 else 'blocks'} out in training, whatever the batch is"


def _fix(trace: Trace, branches: list[str], drop: tuple[str, float] | None) -> str:
    """Blocks of a list, none of which needs an input of its own, are left out by chance or by a setting."""
    if drop:
        return f"set {drop[0]} to 0" + ("" if drop[1] >= 1 else ", or expect unused parameters in each step")
    blocks = [branch for branch in branches if branch.rpartition(".")[2].isdigit()]
    if blocks and trace.structure.training_of(blocks[0]):
        return "look for layer dropout in the model (layerdrop, drop_path): set it to 0, or expect unused parameters in each step"
    return "check with a batch that exercises this branch, or keep target_modules out of it"


def _has_running_sibling(trace: Trace, path: str) -> bool:
    """One of a list whose other members ran: dropped at random (LayerDrop), or left out."""
    stack, _, index = path.rpartition(".")
    return index.isdigit() and any(other != path and other.rpartition(".")[0] == stack for other in trace.executed)


def broken() -> Example:
    """Adapters on both halves, and a batch for one."""
    return _two_towers("text")


def fixed() -> Example:
    """A batch with both inputs."""
    return _two_towers("text", "image")


def _two_towers(*inputs: str) -> Example:
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class TwoTowers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
            self.image = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))

        def forward(self, text: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
            features = self.text(text)
            return features if image is None else features + self.image(image)

    model = get_peft_model(TwoTowers(), LoraConfig(target_modules=r"(text|image)\.[02]"))
    return Example(model, {name: torch.randn(2, 8) for name in inputs}, loss=squared_output)


RULE = Rule(
    "PI208",
    "branch-not-executed",
    Severity.WARNING,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.SYMPTOM,
)
