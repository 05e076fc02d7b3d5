"""Whatever a forward changes besides what it computes is put back: one action a test, each also where the forward raises."""

from __future__ import annotations

import array
import os
import random
import signal
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import peft_inspect
from tests.model_state import state_of


class Slotted:
    """An object of the user's without a `__dict__`."""

    __slots__ = ("count", "late")

    def __init__(self) -> None:
        self.count = 0


class Holder:
    """An ordinary object of the user's."""

    def __init__(self) -> None:
        self.count, self.tensors = 0, (torch.zeros(2), [torch.zeros(2)])


class Other(nn.Linear):
    """What a forward may turn a layer into."""


class Changing(nn.Module):
    """A model whose forward does one more thing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.register_buffer("cache", torch.zeros(2, 3))
        self.register_buffer("statistics", torch.zeros(3))
        self.slotted, self.holder = Slotted(), Holder()
        self.recent: deque[int] = deque([1, 2], maxlen=4)
        self.numbers, self.raw = array.array("f", [0.0, 1.0]), bytearray(b"abc")
        self.table = np.zeros(3)
        self.pair = (torch.zeros(2), {"seen": torch.zeros(2)})
        self.torch_generator = torch.Generator().manual_seed(3)
        self.numpy_generator, self.numpy_state = np.random.default_rng(3), np.random.RandomState(3)
        self.python_generator = random.Random(3)
        self.in_containers = {"generators": [torch.Generator().manual_seed(4), random.Random(4)], "arrays": [np.ones(2)]}
        self.action: Callable[[Changing], object] = lambda _: None
        self.raises = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.action(self)
        if self.raises:
            raise ValueError("no such batch")
        return self.head(torch.relu(self.first(x) + self.second(x))).sum()


def reordered(model: Changing) -> None:
    model.first = model._modules.pop("first")


def parameters_reordered(model: Changing) -> None:
    layer = model.second.get_base_layer()
    layer.register_parameter("weight", layer._parameters.pop("weight"))


def hooks_of_a_parameter(model: Changing) -> None:
    model.first.weight.requires_grad_(True)
    model.first.weight.register_hook(lambda gradient: gradient * 2)
    model.first.weight.register_post_accumulate_grad_hook(lambda _: None)


def hooks_removed(model: Changing) -> None:
    model.head.weight._backward_hooks.clear()
    model.head.weight._post_accumulate_grad_hooks.clear()
    model.head._forward_hooks.clear()


def buffers_resized(model: Changing) -> None:
    with torch.no_grad():
        model.cache.resize_(5, 5).fill_(1)
        model.statistics.data = torch.ones(1)


def classes_changed(model: Changing) -> None:
    model.first.get_base_layer().__class__ = Other
    model.holder.__class__ = type("Changed", (Holder,), {})


def past_the_dispatcher(model: Changing) -> None:
    model.first.get_base_layer().weight.detach().numpy()[:] = 7
    model.head.bias.untyped_storage()[0] = 9
    model.cache.numpy()[:] = 8
    np.asarray(model.statistics)[:] = 6
    np.from_dlpack(model.second.get_base_layer().bias.detach())


def slots(model: Changing) -> None:
    model.slotted.count += 1
    model.slotted.late = [1]


def objects(model: Changing) -> None:
    model.holder.count += 1
    model.holder.new = 1
    model.holder.tensors[0].add_(1)
    model.holder.tensors[1][0].add_(1)
    model.holder.tensors[1].append(torch.zeros(1))


def arrays(model: Changing) -> None:
    model.recent.append(3)
    model.numbers[0] = 5
    model.numbers.append(1)
    model.raw[:] = b"changed"
    model.table += 1
    model.in_containers["arrays"][0] += 1


def tuples(model: Changing) -> None:
    model.pair[0].add_(1)
    model.pair[1]["seen"].add_(1)
    model.pair[1]["more"] = 1


def generators(model: Changing) -> None:
    torch.rand(1, generator=model.torch_generator)
    model.numpy_generator.random()
    model.numpy_state.rand()
    model.python_generator.random()
    for generator in model.in_containers["generators"]:
        torch.rand(1, generator=generator) if isinstance(generator, torch.Generator) else generator.random()


def shared_generators(_: Changing) -> None:
    torch.manual_seed(11), np.random.seed(11), random.seed(11)  # noqa: NPY002


def settings_of_torch(_: Changing) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.autograd.set_detect_anomaly(True)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_float32_matmul_precision("medium")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("cpu")
    torch.set_autocast_enabled("cpu", False)
    torch.set_autocast_dtype("cpu", torch.float16)
    torch.set_grad_enabled(True)


def settings_of_the_process(_: Changing) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir("/")
    os.environ["A_NEW_ONE"] = "1"
    os.environ.pop("HOME", None)
    sys.stdout = sys.stderr
    sys.setrecursionlimit(sys.getrecursionlimit() + 7)
    warnings.simplefilter("ignore")


def hooks_of_all_modules(_: Changing) -> None:
    register_module_forward_hook(lambda *_: None)


def entered_and_not_left(_: Changing) -> None:
    torch.device("cpu").__enter__()
    torch.no_grad().__enter__()
    torch.autocast("cpu", torch.bfloat16).__enter__()


ACTIONS = (
    *(reordered, parameters_reordered, hooks_of_a_parameter, hooks_removed, buffers_resized, classes_changed, past_the_dispatcher),
    *(slots, objects, arrays, tuples, generators, shared_generators, settings_of_torch, settings_of_the_process, hooks_of_all_modules),
    entered_and_not_left,
)


def contents(model: Changing) -> dict[str, Any]:
    """What the attributes of `Changing` lead to."""
    return {
        "slots": (model.slotted.count, hasattr(model.slotted, "late")),
        "holder": (type(model.holder), list(vars(model.holder)), model.holder.count, model.holder.tensors[0].tolist()),
        "tensors": [tensor.tolist() for tensor in model.holder.tensors[1]],
        "arrays": (list(model.recent), model.recent.maxlen, list(model.numbers), bytes(model.raw), model.table.tolist()),
        "pair": (model.pair[0].tolist(), list(model.pair[1]), model.pair[1]["seen"].tolist()),
        "generators": (model.torch_generator.get_state().tolist(), model.python_generator.getstate()),
        "numpy": (str(model.numpy_generator.bit_generator.state), str(model.numpy_state.get_state(legacy=False))),
        "in containers": (model.in_containers["generators"][0].get_state().tolist(), model.in_containers["arrays"][0].tolist()),
    }


@pytest.fixture
def wrapped() -> nn.Module:
    torch.manual_seed(0)
    wrapped: nn.Module = get_peft_model(Changing(), LoraConfig(r=2, target_modules=["first", "second"], modules_to_save=["head"]))
    head = wrapped.get_base_model().head.modules_to_save["default"]
    head.weight.register_hook(lambda gradient: gradient)
    head.weight.register_post_accumulate_grad_hook(lambda _: None)
    head.register_forward_hook(lambda *_: None)
    return wrapped


@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_what_a_forward_changes_is_put_back(wrapped: nn.Module, action: Callable[[Changing], object], raises: bool) -> None:
    model: Any = wrapped.get_base_model()
    done: list[BaseException | None] = []

    def act(changed: Changing) -> None:
        try:
            action(changed)
            done.append(None)
        except BaseException as error:
            done.append(error)
            raise

    model.action, model.raises = act, raises
    batch = {"x": torch.randn(2, 4)}
    before = (state_of(wrapped), contents(model))
    if raises:
        with pytest.raises(peft_inspect.InspectionError, match="no such batch"):
            peft_inspect.check(wrapped, batch)
    else:
        peft_inspect.check(wrapped, batch)
    assert done[0] is None
    after = (state_of(wrapped), contents(model))
    for earlier, later in zip(before, after, strict=True):
        assert [name for name in earlier if earlier[name] != later[name]] == []


def test_printing_a_report_draws_no_random_numbers() -> None:
    """rich draws one when it is imported, which the first report does."""
    program = """
import random, torch, peft_inspect
from torch import nn
report = peft_inspect.gradcheck(nn.Sequential(nn.Linear(2, 2)), {"input": torch.ones(1, 2)})
random.seed(0)
str(report), repr(report), report.to_dict(), str(peft_inspect.tree(nn.Linear(2, 2)))
print(random.random())
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert float(ran.stdout.splitlines()[-1]) == random.Random(0).random()
