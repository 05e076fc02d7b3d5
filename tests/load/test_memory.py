"""Free memory is asked for before anything large is allocated."""

from __future__ import annotations

import pytest
import torch

from peft_inspect.load.model import memory
from peft_inspect.records import InspectionError


def test_tied_weights_are_counted_once():
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 10, bias=False))
    model[1].weight = model[0].weight
    assert memory.weight_bytes(model) == 400


@pytest.mark.parametrize(("free", "fits"), [(400, False), (500, True), (None, True)])
def test_weights_must_fit_with_some_room_and_an_unknown_amount_refuses_nothing(monkeypatch, free, fits):
    monkeypatch.setattr(memory, "available_memory", lambda: free)
    model = torch.nn.Linear(10, 10, bias=False, device="meta")
    if fits:
        memory.require_memory(model, "model")
    else:
        with pytest.raises(InspectionError, match=r"the weights of model take 0.0 GB and 0.0 GB of memory are free"):
            memory.require_memory(model, "model")


def test_this_machine_has_memory():
    assert memory.available_memory() > 100_000_000


def test_a_container_counts_what_it_could_give_up(tmp_path, monkeypatch):
    """Cached files count as used there, and are freed when memory is asked for."""
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert memory._container() == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._container() is None
