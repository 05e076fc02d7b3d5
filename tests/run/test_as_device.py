"""What a model does on a GPU is found without one: kernels that take the weights of adapted layers pass the adapters by."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from peft_inspect import Report, Request, inspect
from peft_inspect.cli import main
from peft_inspect.records import InspectionError
from tests.versions import require

pytestmark = pytest.mark.filterwarnings("ignore")


def inspected(model: str, targets: list[str], *, cuda: bool, **fields: Any) -> Report:
    fields = {"model": model, "lora_fields": {"target_modules": targets}, "reduce": True, **fields}
    return inspect(Request(**fields, as_device="cuda" if cuda else None), verify=False)


def found(report: Report, code: str) -> Any:
    return next((finding for finding in report.findings if finding.code == code), None)


@pytest.fixture
def _chosen_by_what_is_installed() -> None:
    require("transformers", "5.16", "chooses kernels by the device of its tensors")


@pytest.mark.usefixtures("_chosen_by_what_is_installed")
@pytest.mark.parametrize(
    ("model", "target", "fields"),
    [
        ("arch:mamba", "x_proj", {}),
        ("arch:bamba", "out_proj", {"config_fields": {"use_cache": False}}),
        ("arch:zamba2", "out_proj", {"config_fields": {"use_cache": False}}),
        ("arch:granitemoehybrid", "out_proj", {"config_fields": {"use_cache": False}}),
    ],
)
def test_a_fused_kernel_that_takes_raw_weights_passes_the_adapter_by(model: str, target: str, fields: dict[str, Any]) -> None:
    here, there = (inspected(model, ["in_proj", target], cuda=cuda, **fields) for cuda in (False, True))
    assert found(here, "PI201") is None
    finding = found(there, "PI201")
    assert {path.rpartition(".")[2] for path in finding.modules} == {target}
    assert "fused_output = " in finding.source.code
    assert there.trace is not None
    assert {layer.path.rpartition(".")[2] for layer in there.trace.dead} == {target}
    assert any("run as on cuda" in note for note in there.structure.notes)


@pytest.mark.usefixtures("_chosen_by_what_is_installed")
def test_layers_in_front_of_the_kernel_train_and_models_without_one_are_what_they_are() -> None:
    for model, targets in (("arch:mamba", ["in_proj"]), ("arch:llama", ["q_proj", "v_proj"])):
        report = inspected(model, targets, cuda=True)
        assert report.findings == ()
        assert report.trace is not None
        assert {row.state for row in report.trace.gradients} <= {"ok", "zero-at-init"}
    assert torch.cuda.is_available() == (torch.cuda.device_count() > 0)


def test_a_model_with_weights_is_refused() -> None:
    with pytest.raises(InspectionError, match=r"--as-device cuda is for models without weights"):
        inspected("arch:llama", ["q_proj"], cuda=True, weights="random")


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["peft-inspect", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.mark.usefixtures("_chosen_by_what_is_installed")
def test_the_command_and_the_configuration_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    flags = ("check", "arch:mamba", "--reduce", "--target-modules", "x_proj")
    assert called(monkeypatch, *flags, "--as-device", "cuda") == 1
    assert "error PI201" in capsys.readouterr().out
    assert called(monkeypatch, *flags) == 0
    assert called(monkeypatch, *flags, "--as-device", "tpu") == 2
    capsys.readouterr()
    (tmp_path / "peft-inspect.toml").write_text(
        '[targets.mamba]\nmodel = "arch:mamba"\nreduce = true\nas-device = "cuda"\nlora-fields = {target_modules = ["x_proj"]}\n'
    )
    monkeypatch.chdir(tmp_path)
    assert called(monkeypatch, "check", "mamba") == 1
    assert "error PI201" in capsys.readouterr().out
