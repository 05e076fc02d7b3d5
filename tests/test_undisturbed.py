"""What was inspected is afterwards what it was: one test per fact, each also when the forward raises or is interrupted."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import peft_inspect

ENDINGS = ("returns", "raises", "is interrupted")


class Noisy(nn.Module):
    """A forward that leaves traces wherever a forward can."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.fc = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 16)
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("replaced", torch.zeros(1))
        self.steps = 0
        self.counted = torch.zeros(1)
        self.memory = {"seen": [torch.zeros(1)]}
        self.ending = "returns"

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.steps += 1
        self.counted += 1
        self.memory["seen"][0].add_(1)
        self.cache = self.fc(self.embed(input_ids)).flatten(0, 1)
        self.seen += 1
        self.replaced = self.replaced + 1
        self.embed.weight.data.mul_(0.5)
        hidden = self.dropout(self.norm(self.cache)) + np.random.rand() + random.random()  # noqa: NPY002 # the global generator is the fact
        torch.set_grad_enabled(True)
        self.head.eval()
        self.fc.register_forward_hook(lambda *_: None)
        self.norm.requires_grad_(True)
        if self.ending == "raises":
            raise ValueError("no such batch")
        if self.ending == "is interrupted":
            raise KeyboardInterrupt
        logits = self.head(hidden)
        return {"loss": nn.functional.cross_entropy(logits, labels.flatten())}


@pytest.fixture
def model() -> nn.Module:
    """A model in mixed modes, with gradients from a step before, a hook and a trainable head."""
    torch.manual_seed(0)
    wrapped: nn.Module = get_peft_model(Noisy(), LoraConfig(r=2, target_modules=["fc"], modules_to_save=["head"]))
    wrapped.train()
    wrapped.get_submodule("base_model.model.dropout").eval()
    wrapped.get_submodule("base_model.model.norm").register_forward_hook(lambda *_: None)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    return wrapped


@pytest.fixture(params=ENDINGS)
def inspect(request: pytest.FixtureRequest, model: nn.Module) -> Callable[[], None]:
    """One inspection that ends in this way."""
    batch = {"input_ids": torch.randint(16, (2, 4)), "labels": torch.randint(16, (2, 4))}
    model.base_model.model.ending = request.param  # type: ignore[union-attr] # PeftModel forwards attributes

    def run() -> None:
        if request.param == "returns":
            peft_inspect.check(model, batch)
        else:
            expected = KeyboardInterrupt if request.param == "is interrupted" else peft_inspect.InspectionError
            with pytest.raises(expected):
                peft_inspect.check(model, batch)

    return run


def same(left: Any, right: Any) -> bool:
    return bool(torch.equal(left, right))


def test_parameters_are_the_same_objects_with_the_same_bits(model, inspect) -> None:
    before = {name: (parameter, parameter.data_ptr(), parameter.detach().clone()) for name, parameter in model.named_parameters()}
    inspect()
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    for name, (parameter, pointer, values) in before.items():
        assert after[name] is parameter
        assert parameter.data_ptr() == pointer
        assert same(parameter, values), name


def test_gradients_of_an_earlier_step_are_kept(model, inspect) -> None:
    before = {
        name: (parameter.grad, None if parameter.grad is None else parameter.grad.clone()) for name, parameter in model.named_parameters()
    }
    inspect()
    for name, parameter in model.named_parameters():
        gradient, values = before[name]
        assert parameter.grad is gradient, name
        assert gradient is None or same(gradient, values), name


def test_requires_grad_is_kept(model, inspect) -> None:
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    inspect()
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before


def test_the_mode_of_every_module_is_kept(model, inspect) -> None:
    before = {name: module.training for name, module in model.named_modules()}
    assert set(before.values()) == {True, False}
    inspect()
    assert {name: module.training for name, module in model.named_modules()} == before


def test_hooks_of_modules_are_kept_and_none_are_left(model, inspect) -> None:
    def hooks() -> dict[str, list[int]]:
        return {
            name: [*module._forward_hooks, *module._forward_pre_hooks, *module._backward_hooks] for name, module in model.named_modules()
        }

    before = hooks()
    inspect()
    assert hooks() == before


def test_no_global_hook_is_left(inspect) -> None:
    from torch.nn.modules import module

    registries = (module._global_forward_hooks, module._global_forward_pre_hooks, module._global_backward_hooks)
    before = [list(registry) for registry in registries]
    inspect()
    assert [list(registry) for registry in registries] == before


def test_no_hook_is_left_on_parameters(model, inspect) -> None:
    seen: list[str] = []
    parameter = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    parameter.register_post_accumulate_grad_hook(lambda _: seen.append("the user's own"))
    inspect()
    assert seen == [], "a step in the backward would have changed the weights"
    assert len(parameter._post_accumulate_grad_hooks) == 1
    assert all(not other._backward_hooks for other in model.parameters())


def test_buffers_with_batch_statistics_are_the_same_objects_with_the_same_bits(model, inspect) -> None:
    before = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    inspect()
    after = dict(model.named_buffers())
    assert list(after) == list(before)
    for name, (buffer, values) in before.items():
        assert after[name] is buffer, name
        assert same(buffer, values), name


def test_attributes_that_the_forward_sets_are_gone(model, inspect) -> None:
    inner = model.base_model.model
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    inspect()
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert inner.steps == 0


def test_tensors_in_plain_attributes_and_containers_keep_their_bits(model, inspect) -> None:
    noisy = model.get_base_model()
    inspect()
    assert (noisy.counted, noisy.memory["seen"][0]) == (0, 0)


class Remembering(nn.Module):
    """Writes features into a buffer and a plain tensor, detached, and has a leaf that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("kept", torch.zeros(2, 4))
        self.plain = torch.zeros(2, 4)
        self.temperature = torch.ones(1, requires_grad=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.fc(x).detach()
        self.kept.copy_(features)
        self.plain.copy_(features)
        return ((self.kept + self.plain) * self.temperature).sum()


def test_tensors_outside_the_graph_stay_outside_it() -> None:
    """Also when the fix that is tried connects what is written into them."""
    wrapped = get_peft_model(Remembering(), LoraConfig(r=2, target_modules=["fc"]))
    inner = wrapped.get_base_model()
    report = peft_inspect.check(wrapped, {"x": torch.randn(2, 4)})
    assert [(found.code, found.fix_verified) for found in report.findings] == [("PI305", True)]
    assert not inner.kept.requires_grad
    assert not inner.plain.requires_grad
    assert inner.temperature.requires_grad
    assert inner.temperature.grad is None
    assert not inner.kept.any()
    assert not inner.plain.any()


def test_random_number_generators_are_where_they_were(inspect) -> None:
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    inspect()
    assert same(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    after = np.random.get_state()  # noqa: NPY002
    assert (after[1] == numpy_state[1]).all()
    assert after[2:] == numpy_state[2:]


@pytest.mark.parametrize("enabled", [True, False])
def test_grad_mode_is_kept_whatever_it_was(inspect, enabled: bool) -> None:
    with torch.set_grad_enabled(enabled):
        inspect()
        assert torch.is_grad_enabled() is enabled
        assert not torch.is_inference_mode_enabled()


def test_autocast_and_default_dtype_are_kept(inspect) -> None:
    before = (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.get_default_dtype())
    inspect()
    assert (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.get_default_dtype()) == before


def test_nothing_that_the_trace_patches_stays_patched(inspect) -> None:
    import torch.utils.checkpoint as checkpointing

    def patched() -> list[Any]:
        return [
            torch.no_grad.__enter__,
            torch.no_grad.__exit__,
            torch.set_grad_enabled,
            torch.set_grad_enabled.__init__,
            torch.inference_mode.__enter__,
            checkpointing.CheckpointFunction,
            checkpointing.checkpoint,
            torch.autograd.Function.apply,
            torch.autograd.backward,
            torch.autograd.grad,
            torch.Tensor.detach,
            torch.Tensor.item,
            torch.Tensor.numpy,
            torch.Tensor.backward,
            torch.tensor,
            nn.Module.__call__,
            nn.Linear.forward,
        ]

    before = patched()
    inspect()
    for now, then in zip(patched(), before, strict=True):
        assert now is then or now == then


def test_the_batch_is_not_touched(model) -> None:
    ids = torch.randint(16, (2, 4))
    batch = {"input_ids": ids, "labels": torch.randint(16, (2, 4))}
    kept, values = dict(batch), {name: tensor.clone() for name, tensor in batch.items()}
    peft_inspect.check(model, batch)
    assert list(batch) == list(kept)
    for name, tensor in batch.items():
        assert tensor is kept[name]
        assert same(tensor, values[name])


def test_the_optimizer_is_not_stepped(model) -> None:
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    peft_inspect.check(model, {"input_ids": torch.randint(16, (2, 4)), "labels": torch.randint(16, (2, 4))}, optimizer=optimizer)
    assert not optimizer.state


def test_two_inspections_say_the_same(model) -> None:
    batch = {"input_ids": torch.randint(16, (2, 4)), "labels": torch.randint(16, (2, 4))}
    first, second = (peft_inspect.check(model, batch).to_dict() for _ in range(2))
    assert {**first, "timings": None} == {**second, "timings": None}


def test_training_goes_on_as_if_nothing_had_happened() -> None:
    """Two steps with and without an inspection between them end at the same bits."""

    def train(look: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = get_peft_model(Noisy(), LoraConfig(r=2, target_modules=["fc"])).train()
        inputs = {"input_ids": torch.randint(16, (2, 4)), "labels": torch.randint(16, (2, 4))}
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
        for _ in range(2):
            if look:
                peft_inspect.check(model, inputs, optimizer=optimizer)
            model(**inputs)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
        return [parameter.detach().clone() for parameter in model.parameters()]

    assert all(same(left, right) for left, right in zip(train(look=False), train(look=True), strict=True))


def test_an_autocast_around_the_inspection_keeps_no_cast_of_what_was_inside() -> None:
    """Weights that a run changes are cast while they are changed, and autocast would hand out these casts until it ends."""

    class Halving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.fc.lora_A["default"].weight.data.mul_(0.5)
            return self.fc(x)

    model, x = get_peft_model(Halving(), LoraConfig(r=2, target_modules=["fc"], init_lora_weights=False)), torch.rand(2, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model.base_model.model.fc(x)
        torch.clear_autocast_cache()
        peft_inspect.check(model, {"x": x})
        assert same(model.base_model.model.fc(x), expected)
