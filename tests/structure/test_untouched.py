"""Layers of the user's own beside a pretrained model: those that still are as torch initialised them are new."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import peft_inspect
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.structure.untouched import untouched_layers


class Adapted(torch.nn.Module):
    """A language model with a projector in front and a head behind it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lm = tiny_llama()
        self.projector = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 16))
        self.classify = torch.nn.Linear(16, 4)

    def forward(self, input_ids: torch.Tensor, features: torch.Tensor) -> dict[str, torch.Tensor]:
        embedded = self.lm.get_input_embeddings()(input_ids) + self.projector(features)
        return {"loss": self.classify(self.lm.model(inputs_embeds=embedded).last_hidden_state).square().mean()}


def found(model: torch.nn.Module) -> list[Any]:
    ids = text_batch()["input_ids"]
    return list(peft_inspect.check(model, batch={"input_ids": ids, "features": torch.randn(*ids.shape, 8)}).findings)


def test_what_the_wrapping_froze_is_named_as_a_whole_and_the_suggestion_trains_it():
    targets = ["q_proj", "v_proj"]
    (finding,) = found(get_peft_model(Adapted(), LoraConfig(target_modules=targets)))
    assert finding.code == "PI113"
    assert finding.modules == ("base_model.model.classify", "base_model.model.projector")
    assert not found(get_peft_model(Adapted(), LoraConfig(target_modules=targets, **finding.facts["suggestion"])))


def test_a_name_that_other_names_end_with_is_not_suggested():
    model = Adapted()
    model.proj = torch.nn.Linear(16, 16)
    (finding,) = found(get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["classify", "projector"])))
    assert (finding.code, finding.facts["suggestion"]) == ("PI113", {})
    assert finding.fix.startswith("unfreeze it after the wrapping")


def test_what_was_trained_or_initialised_in_another_way_is_not_new():
    model = Adapted()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    ids = text_batch()["input_ids"]
    model(ids, torch.randn(*ids.shape, 8))["loss"].backward()
    optimizer.step()
    torch.nn.init.normal_(model.classify.weight, std=0.02)
    assert list(untouched_layers(dict(model.named_modules()))) == []


def test_a_model_of_torch_modules_alone_has_nothing_that_the_others_were_new_to():
    layers = {"": torch.nn.Sequential(torch.nn.Linear(64, 64)), "0": torch.nn.Linear(64, 64)}
    assert list(untouched_layers(layers)) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bound_allows_for_the_rounding_of_the_dtype(dtype: torch.dtype):
    torch.manual_seed(0)
    modules = {"": torch.nn.Module(), "lm": tiny_llama(), "new": torch.nn.Linear(256, 256).to(dtype)}
    assert list(untouched_layers(modules)) == ["new"]
