"""A fix is tried in memory; what its trial raises is no fault of the program that is inspected."""

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import nn

import peft_inspect


class ReadsTheWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        return {"loss": self.out(nn.functional.linear(x, self.inner.weight)).square().mean()}


def test_a_trial_that_raises_is_not_judged(monkeypatch):
    def refuse(layer, adapter):
        raise NotImplementedError("this tuner adds no delta to a weight")

    monkeypatch.setattr(Linear, "get_delta_weight", refuse)
    model = get_peft_model(ReadsTheWeight(), LoraConfig(r=2, target_modules=["inner"]))
    (found,) = peft_inspect.check(model, batch={"x": torch.rand(2, 4)}).findings
    assert (found.code, found.fix_verified) == ("PI201", None)
    assert found.verified.startswith("not judged: the run with the adapter applied where the weight is read raised NotImplementedError")
