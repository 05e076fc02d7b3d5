"""Base weights that lie on disk or in the memory of the host: no pass of our own, and the program's step is watched all the same."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import peft_inspect
from peft_inspect.rules.examples import text_batch, tiny_llama

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")


class OffloadedOptimizer:
    """As torchao offloads one: each weight has a copy on the host with an optimizer of its own, fed by a hook on its gradient."""

    def __init__(self, parameters: Any, *, takes_gradients: bool) -> None:
        self.copies = {parameter: parameter.detach().clone() for parameter in parameters}
        self.optimizers = {parameter: torch.optim.AdamW([copy], lr=0.01) for parameter, copy in self.copies.items()}
        self.takes_gradients = takes_gradients
        for parameter in self.copies:
            parameter.register_post_accumulate_grad_hook(self.hand_on)

    def hand_on(self, parameter: Any) -> None:
        self.copies[parameter].grad = parameter.grad.detach().clone()
        if self.takes_gradients:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for parameter, copy in self.copies.items():
            self.optimizers[parameter].step()
            parameter.copy_(copy)

    def zero_grad(self) -> None:
        for parameter in self.copies:
            parameter.grad = None


@pytest.mark.parametrize("takes_gradients", [False, True])
def test_an_optimizer_that_steps_on_copies_elsewhere_is_no_fault(takes_gradients: bool) -> None:
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"])).train()
    trained_ones = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = OffloadedOptimizer(trained_ones, takes_gradients=takes_gradients)
    with peft_inspect.watch() as watched:
        for _ in range(3):
            model(**text_batch()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert watched.report is not None
    assert watched.report.findings == ()
    (outcome,) = [outcome for outcome in watched.report.outcomes if outcome.code == "PI317"]
    assert (outcome.status, "tensors of no module" in outcome.why) == ("skipped", True)


def offloaded(way: str, folder: Path) -> Any:
    """The adapters stay, as they must to be trained; what is frozen is brought in while its module runs."""
    torch.manual_seed(0)
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.1))
    leaves = [name for name, module in model.named_modules() if not list(module.children())]
    frozen = [name for name in leaves if "lora_" not in name and next(model.get_submodule(name).parameters(), None) is not None]
    if way == "dispatched":
        places = {name: "disk" if name in frozen else "cpu" for name in leaves}
        return accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(folder), force_hooks=True)
    for name in frozen:
        if way == "disk":
            accelerate.disk_offload(model.get_submodule(name), str(folder / name), torch.device("cpu"))
        else:
            accelerate.cpu_offload(model.get_submodule(name), torch.device("cpu"))
    return model


def trained(way: str, folder: Path, *, watched: bool, blind: bool = False) -> Any:
    model = offloaded(way, folder).train()
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.01)
    losses = []
    torch.manual_seed(1)
    with peft_inspect.watch(fail_on="never") if watched else nullcontext() as watching:
        for _ in range(4):
            with torch.set_grad_enabled(not blind):
                loss = model(**text_batch()).loss
            loss = loss if loss.requires_grad else loss * torch.ones((), requires_grad=True)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    weights = [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]
    return losses, weights, watching and watching.report


@pytest.mark.parametrize("way", ["disk", "cpu", "dispatched"])
def test_a_training_with_offloaded_weights_is_watched_and_stays_what_it_is(tmp_path: Path, way: str) -> None:
    bare, weights, _ = trained(way, tmp_path / "bare", watched=False)
    losses, moved, report = trained(way, tmp_path / "watched", watched=True)
    assert losses == bare
    assert all(map(torch.equal, weights, moved))
    assert report.findings == ()
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]
    (finding,) = trained(way, tmp_path / "blind", watched=True, blind=True)[2].findings
    assert finding.code == "PI303"
    with pytest.raises(peft_inspect.InspectionError, match=r"not inspected: AlignDevicesHook of accelerate brings the weights"):
        peft_inspect.check(offloaded(way, tmp_path / "refused"), text_batch())
