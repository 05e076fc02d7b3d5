"""Every program of this folder, broken and fixed: the one cause is named, at its line, and everything else is silence.

A case is a user program. Its constants say what is true of it, found with a bare forward and backward, not with the tool:
RULE and NAME of the finding, LAYERS (a pattern for exactly the adapter layers it lists; None where it is about no layer),
DEAD and FIXED_DEAD (adapter parameters without a gradient), VERIFIED (True where the fix can be proved in memory), and
`# <- cause` behind the line at fault. A fault inside a library names its file in SOURCE_ENDS instead; a program with two
faults has a tuple of dictionaries in FAULTS, and `# <- cause PI303` at its lines.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

import peft_inspect
from tests.versions import require_for_case

if TYPE_CHECKING:
    from peft_inspect.rules import Example

# The programs are the users' own, with whatever they make torch, transformers and PEFT warn about.
pytestmark = pytest.mark.filterwarnings("ignore")

FOLDER = Path(__file__).parent
CASES = sorted(
    path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.py") if path.parent.name not in ("files", "coverage")
)
WITH_FAULT = [name for name in CASES if not name.startswith("healthy/")]
RUNS = [(name, "healthy") for name in CASES if name.startswith("healthy/")] + [
    (name, which) for name in WITH_FAULT for which in ("broken", "fixed")
]


@dataclass(frozen=True)
class Fault:
    """What a case says about one of its faults."""

    rule: str
    name: str
    layers: str | None
    verified: bool | None = None
    source_ends: str | None = None
    modules: tuple[str, ...] | None = None


@cache
def program(name: str) -> ModuleType:
    """The module of a case."""
    require_for_case(name)
    spec = importlib.util.spec_from_file_location(f"case_{name.replace('/', '_')}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faults(case: ModuleType) -> tuple[Fault, ...]:
    """The faults that a case says it has."""
    constants = ("RULE", "NAME", "LAYERS", "VERIFIED", "SOURCE_ENDS", "MODULES")
    single = {name: vars(case)[name] for name in constants if name in vars(case)}
    return tuple(Fault(**{key.lower(): value for key, value in fault.items()}) for fault in vars(case).get("FAULTS", (single,)))


def marked_line(case: ModuleType, code: str) -> int | None:
    """The line of the case that carries the marker of this rule, or the only marker there is."""
    lines = Path(str(case.__file__)).read_text().splitlines()
    marked = {number: line.split("# <- cause")[1].strip() for number, line in enumerate(lines, 1) if "# <- cause" in line}
    return next((number for number, of_rule in marked.items() if of_rule in ("", code)), None)


def build(name: str, which: str) -> Example:
    """The program, built afresh and always in the same way."""
    torch.manual_seed(0)
    example: Example = getattr(program(name), which)()
    return example


def adapter_parameters(model: torch.nn.Module) -> Iterator[tuple[str, str, torch.nn.Parameter]]:
    """Every adapter parameter: path of its layer, its own path, and itself."""
    for path, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            for container in module.adapter_layer_names:
                held = getattr(module, container, None)
                for key, parameter in held.named_parameters() if isinstance(held, torch.nn.Module) else ():
                    yield path, f"{path}.{container}.{key}", parameter


def bare_dead(example: Example) -> set[str]:
    """Paths of the adapter parameters without a gradient after a bare forward and backward."""
    batch: Mapping[str, Any] = example.batch or {}
    loss = example.loss(example.model, batch) if example.loss else default_loss(example.model(**batch))
    if loss.requires_grad:
        loss.backward()
    return {path for _, path, parameter in adapter_parameters(example.model) if parameter.grad is None}


def default_loss(output: Any) -> torch.Tensor:
    """What training without a loss function of one's own would take."""
    if isinstance(output, torch.Tensor):
        return output.sum()
    loss = output["loss"] if "loss" in output else sum(value.sum() for value in output.values() if value.is_floating_point())
    assert isinstance(loss, torch.Tensor)
    return loss


def inspect(example: Example) -> peft_inspect.Report:
    """The gradient and bypass rules over one example."""
    return peft_inspect.check(example.model, example.batch, loss=example.loss, optimizer=example.optimizer, select=("PI2", "PI3"))


def dead_of(report: peft_inspect.Report) -> set[str]:
    """Paths of the adapter parameters that the report says got no gradient."""
    return {row["path"] for layer in report.to_dict()["layers"] for row in layer["parameters"] if row["grad"] in {"none", "frozen"}}


def listed(report: peft_inspect.Report) -> str:
    """The findings of a report, for the message of a failed assertion."""
    return "\n".join(f"{found.code} {found.source} {found.modules[:3]} {found.message}" for found in report.findings)


@pytest.mark.parametrize("name", WITH_FAULT)
def test_the_cause_is_named_once_with_its_layers_and_its_line(name: str) -> None:
    case, example = program(name), build(name, "broken")
    report = inspect(example)
    expected = faults(case)
    assert [found.code for found in report.findings] == sorted(fault.rule for fault in expected), listed(report)
    layer_paths = {path for path, _, _ in adapter_parameters(example.model)}
    for fault in expected:
        found = next(found for found in report.findings if found.code == fault.rule and _is_about(found, fault))
        assert found.rule == fault.name
        if fault.layers is not None:
            assert set(found.modules) == {path for path in layer_paths if re.fullmatch(fault.layers, path)}
        if fault.modules is not None:
            assert set(found.modules) == set(fault.modules)
        _assert_source(case, fault, found.source)
        assert found.fix_verified is True if fault.verified else found.fix_verified is not False, found.verified


def _is_about(found: peft_inspect.Finding, fault: Fault) -> bool:
    return fault.layers is None or any(re.fullmatch(fault.layers, path) for path in found.modules)


def _assert_source(case: ModuleType, fault: Fault, source: Any) -> None:
    line = marked_line(case, fault.rule)
    if fault.source_ends is not None:
        assert source is not None
        assert source.file.endswith(fault.source_ends), source
    elif line is not None:
        assert source is not None
        assert (Path(source.file).name, source.line) == (Path(str(case.__file__)).name, line), source


@pytest.mark.parametrize(("name", "which"), [run for run in RUNS if run[1] != "broken"])
def test_a_sound_program_is_met_with_silence(name: str, which: str) -> None:
    report = inspect(build(name, which))
    assert report.findings == (), listed(report)
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]


@pytest.mark.parametrize(("name", "which"), RUNS)
def test_watching_changes_nothing_about_who_gets_a_gradient(name: str, which: str) -> None:
    """Some faults vanish while a module carries a hook; the trace must see them all the same."""
    dead = bare_dead(build(name, which))
    assert len(dead) == (program(name).DEAD if which == "broken" else vars(program(name)).get("FIXED_DEAD", 0))
    assert dead_of(inspect(build(name, which))) == dead
