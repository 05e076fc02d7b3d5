"""Operations inside stock LoRA layers are not watched; what is known of them is what watching would have seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from peft_inspect.load import live
from peft_inspect.records import Trace
from peft_inspect.structure import read_structure
from peft_inspect.trace import run_trace
from peft_inspect.trace.operations import Operations


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.read = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.second(torch.relu(self.first(x))), self.read.weight).sum()


class Writing(nn.Linear):
    """A base layer of the user's that writes into its own weight."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - as its base names it
        self.weight.data.mul_(0.5)
        return super().forward(input)


def wrapped(change: Callable[[Any], None] = lambda _: None, base: Callable[[Pair], None] = lambda _: None) -> nn.Module:
    torch.manual_seed(0)
    inner = Pair()
    base(inner)
    model: nn.Module = get_peft_model(inner, LoraConfig(r=2, target_modules=["first", "second", "read"]))
    change(model.get_base_model())
    return model


def write_on_call(layer: nn.Module, *_: object) -> None:
    layer.get_base_layer().weight.data.zero_()


MODELS = {
    "stock": wrapped(),
    "merged": wrapped(lambda model: model.first.merge()),
    "disabled": wrapped(lambda model: model.first.enable_adapters(False)),
    "a hook": wrapped(lambda model: model.first.lora_A["default"].register_forward_hook(lambda *_: None)),
    "a hook that writes": wrapped(lambda model: model.first.register_forward_pre_hook(write_on_call)),
    "a base of the user's": wrapped(base=lambda model: setattr(model, "first", Writing(4, 4))),
    "a forward put over it": wrapped(lambda model: setattr(model.first, "forward", model.first.base_layer.forward)),
    "two adapters": wrapped(lambda model: model.first.update_layer("other", r=2, lora_alpha=2, config=LoraConfig())),
}


def traced(model: nn.Module) -> tuple[Trace, int]:
    """The trace, and how many operations were watched."""
    subject = live(model, batch={"x": torch.ones(2, 4)}, loss=None, optimizer=None, adapter=None)
    watched = 0
    dispatch = Operations.__torch_dispatch__

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal watched
        watched += 1
        return dispatch(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Operations, "__torch_dispatch__", counting)
        return run_trace(subject, read_structure(subject)), watched


@pytest.mark.parametrize("name", MODELS)
def test_the_trace_is_the_same_as_with_every_operation_watched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]
    before = {path: parameter.detach().clone() for path, parameter in model.named_parameters()}
    paused, fewer = traced(model)
    monkeypatch.setattr(Operations, "pause", lambda self: False)
    watched, every = traced(model)
    assert (paused.calls, paused.weight_uses, paused.base_calls) == (watched.calls, watched.weight_uses, watched.base_calls)
    assert fewer < every, "layers beside the changed one are stock"
    assert all(torch.equal(parameter, before[path]) for path, parameter in model.named_parameters())


def test_a_mode_of_the_users_sees_every_operation_and_so_does_ours() -> None:
    class Mine(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    _, fewer = traced(MODELS["stock"])
    with Mine():
        _, every = traced(MODELS["stock"])
    assert fewer < every
