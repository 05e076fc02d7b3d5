"""One list says what is replaced in torch and PEFT."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import peft_inspect
from peft_inspect.run import patches

PACKAGE = Path(peft_inspect.__file__).parent


@pytest.mark.parametrize("place", patches.PLACES, ids=lambda place: f"{place[0].__name__}.{place[1]}")
def test_every_place_is_there_in_this_version(place: patches.Place) -> None:
    owner, name = place
    assert hasattr(owner, name)


def test_each_place_is_listed_once() -> None:
    assert len(set(patches.PLACES)) == len(patches.PLACES)
    named = {
        name: value for name, value in vars(patches).items() if name.isupper() and name not in ("PLACES", "LAYER_SWITCHES", "TAKEN_OFF")
    }
    own = {place for value in named.values() for place in ((value,) if isinstance(value[1], str) else value)}
    assert own == set(patches.PLACES)


def test_no_other_file_assigns_to_an_attribute_of_torch() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] != "rules"  # their examples are broken programs
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and ast.unparse(target).startswith(("torch.", "checkpoint.", "nn.", "peft."))
    ]
    assert [place for place in found if not place.startswith("run/process.py")] == []


def test_methods_that_switch_adapter_layers_are_found_in_each_class_that_has_its_own() -> None:
    class Layer:
        def merge(self) -> None: ...

    class Other(Layer):
        def merge(self) -> None: ...

        def set_adapter(self) -> None: ...

    assert patches.layer_switches([Other(), torch.nn.Linear(1, 1)]) == [(Other, "merge"), (Other, "set_adapter"), (Layer, "merge")]
