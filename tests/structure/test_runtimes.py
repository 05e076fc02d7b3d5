"""What a runtime owns is recognised before anything runs, and said; nothing of it is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import cpu_offload, disk_offload, dispatch_model
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import peft_inspect
from peft_inspect.records import InspectionError
from peft_inspect.rules.examples import text_batch, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore")


def model() -> Any:
    torch.manual_seed(0)
    return get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))


def trainable(of: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in of.parameters() if parameter.requires_grad]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this one process: what a runtime needs, without a second one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def refused(of: nn.Module) -> str:
    with pytest.raises(InspectionError, match=r"^not inspected: ") as caught:
        peft_inspect.check(of, text_batch())
    assert "-m peft_inspect run" in str(caught.value)
    return str(caught.value)


def zero_3(of: nn.Module) -> nn.Module:
    """The marks that ZeRO-3 leaves: an emptied parameter with its part beside it."""
    for number, parameter in enumerate(of.parameters()):
        parameter.ds_id, parameter.ds_shape, parameter.ds_tensor = number, parameter.shape, parameter.detach().flatten().clone()
        parameter.data = torch.empty(0)
    return of


def test_zero_3_is_recognised_and_keeps_its_storages() -> None:
    inspected = zero_3(model())
    assert "ZeRO-3" in refused(inspected)
    assert all(parameter.shape == (0,) for parameter in inspected.parameters())


def test_the_tree_of_sharded_weights_shows_what_they_are_as_a_whole() -> None:
    assert str(peft_inspect.tree(zero_3(model()))) == str(peft_inspect.tree(model()))


@pytest.mark.usefixtures("alone")
def test_fsdp_is_recognised() -> None:
    inspected = model()
    fully_shard(inspected, mesh=init_device_mesh("cpu", (1,)))
    assert "DTensor" in refused(inspected)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("flat", [False, True])
def test_flat_parameters_are_recognised(flat: bool) -> None:
    inspected = model().requires_grad_(True)
    assert "FSDP" in refused(FullyShardedDataParallel(inspected, use_orig_params=not flat, device_id=torch.device("cpu")))


@pytest.mark.usefixtures("alone")
def test_a_reducer_that_remembers_its_graph_is_recognised_from_the_model_inside_it() -> None:
    inspected = model()
    wrapped = DistributedDataParallel(inspected, static_graph=True)
    assert "static_graph" in refused(inspected)
    assert "static_graph" in refused(wrapped)


@pytest.mark.usefixtures("alone")
def test_a_reducer_alone_is_no_obstacle() -> None:
    assert not peft_inspect.check(DistributedDataParallel(model()), text_batch()).findings


def offloaded(of: Any, way: str, folder: Path) -> Any:
    if way == "cpu":
        return cpu_offload(of, execution_device=torch.device("cpu"))
    if way == "disk":
        return disk_offload(of, folder, execution_device=torch.device("cpu"))
    inner = "base_model.model.model"
    places = {f"{inner}.{name}": "cpu" for name in ("embed_tokens", "layers.1", "norm", "rotary_emb")}
    return dispatch_model(
        of, {**places, f"{inner}.layers.0": "disk", "base_model.model.lm_head": "cpu"}, main_device="cpu", offload_dir=folder
    )


@pytest.mark.parametrize("way", ["cpu", "disk", "map"])
def test_offloaded_layers_are_recognised_and_left_where_they_are(way: str, tmp_path: Path) -> None:
    inspected = offloaded(model(), way, tmp_path / "offload")
    before = {name: (id(parameter), parameter.device) for name, parameter in inspected.named_parameters()}
    assert "accelerate" in refused(inspected)
    assert before == {name: (id(parameter), parameter.device) for name, parameter in inspected.named_parameters()}


def test_a_device_map_without_offloading_is_no_obstacle() -> None:
    inspected = dispatch_model(model(), {"": "cpu"}, main_device="cpu", force_hooks=True)
    assert not peft_inspect.check(inspected, text_batch()).findings


class Wrapped:
    """As accelerate and others put it around an optimizer."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.param_groups: list[Any] = []


class Sharding:
    """As DeepSpeed keeps it: its own flat copies to step on, and beside them the weights that they stand for."""

    def __init__(self, parameters: list[nn.Parameter], *, tells: bool) -> None:
        flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
        self.optimizer = torch.optim.AdamW([nn.Parameter(flat)])
        self.param_groups = self.optimizer.param_groups
        if tells:
            self.bit16_groups = [parameters]


def outcome(report: peft_inspect.Report) -> tuple[str, str]:
    return next((outcome.status, outcome.why) for outcome in report.outcomes if outcome.code == "PI317")


def zero_redundancy(parameters: list[nn.Parameter]) -> Any:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, torch.optim.SGD, lr=0.1)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "make",
    [
        zero_redundancy,
        lambda parameters: Wrapped(Wrapped(torch.optim.SGD(parameters, lr=0.1))),
        lambda parameters: Sharding(parameters, tells=True),
    ],
    ids=["zero-redundancy", "wrapped", "sharding"],
)
def test_the_weights_behind_shards_and_wrappers_are_found(make: Any) -> None:
    inspected = model()
    weights = trainable(inspected)
    assert outcome(peft_inspect.check(inspected, text_batch(), optimizer=make(weights)))[0] == "clean"
    assert outcome(peft_inspect.check(inspected, text_batch(), optimizer=make(weights[1:])))[0] == "found"


def test_an_optimizer_of_copies_that_tells_nothing_is_skipped_with_that_reason() -> None:
    inspected = model()
    status, why = outcome(peft_inspect.check(inspected, text_batch(), optimizer=Sharding(trainable(inspected), tells=False)))
    assert status == "skipped"
    assert "Sharding, holds 1 tensors of its own" in why
