"""Whether the code of a module reads a layer's weight: one reader, for coverage and for findings."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from peft_inspect.records import Source
from peft_inspect.structure.source.reads import source_reads


def reads_of(module: nn.Module) -> dict[str, Source]:
    """The children whose weight the code of a module reads, with the first line that does."""
    names = [*(name for name, _ in module.named_children()), "child"]
    return {read.layer: read.source for read in source_reads({"": module}, names)}


class Reading(nn.Module):
    """Reads weights in every way, of which only those that a call can reach and that give values count."""

    def __init__(self) -> None:
        super().__init__()
        self.in_forward, self.in_helper, self.on_a_path = (nn.Linear(2, 2) for _ in range(3))
        self.in_constructor, self.in_other_method, self.tested, self.looked_at, self.called = (nn.Linear(2, 2) for _ in range(5))
        nn.init.zeros_(self.in_constructor.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.tested.weight, nn.Parameter) and hasattr(self.tested.weight, "quant_state"):
            x = x.to(self.looked_at.weight.dtype)
        if x.is_cuda:
            return functional.linear(x, self.on_a_path.weight)
        return self._helped(functional.linear(x, self.in_forward.weight))

    def _helped(self, x: torch.Tensor) -> torch.Tensor:
        return self.called(x @ self.in_helper.weight)

    def exported(self) -> torch.Tensor:
        return self.in_other_method.weight


def test_what_a_call_can_reach_counts_with_its_line() -> None:
    found = reads_of(Reading())
    assert set(found) == {"in_forward", "in_helper", "on_a_path"}
    assert found["in_helper"].code == "self.in_helper.weight"
    assert found["in_helper"].function == "_helped"
    lines = Path(__file__).read_text().splitlines()
    assert all(f"self.{name}.weight" in lines[source.line - 1] for name, source in found.items() if source.line is not None)


@pytest.mark.parametrize("bind", [lambda function, module: function.__get__(module), functools.partial], ids=["method", "partial"])
def test_a_forward_that_was_put_over_it_is_read_in_its_place(bind: Any) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.called.weight)

    module: Any = Reading()
    module.forward = bind(forward, module)
    assert set(reads_of(module)) == {"called"}


def test_a_function_around_the_module_is_read_under_the_name_it_has_there() -> None:
    module: Any = Reading()

    def forward(x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, module.called.weight)

    module.forward = forward
    assert set(reads_of(module)) == {"called"}


def test_code_of_torch_and_code_without_source_tell_nothing() -> None:
    made: dict[str, Any] = {}
    exec("class Made(nn.Linear):\n    def forward(self, x):\n        return self.child.weight", {"nn": nn}, made)
    assert reads_of(made["Made"](1, 1)) == {}
    assert reads_of(nn.MultiheadAttention(4, 2)) == {}
