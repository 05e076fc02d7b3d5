"""Each row of the table of families, on the architecture at its full size, without weights."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

from peft_inspect.batch import families, make_batch
from peft_inspect.batch.plan import TEXT_LENGTH
from peft_inspect.load import load
from peft_inspect.records import InspectionError, Request, Subject
from peft_inspect.run.runs import own_copy, runnable
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.run.weightless import materialise

ROWS = [pytest.param(family, kind, id=f"{kind} {family.argument}") for family in families.FAMILIES for kind in family.types]


def layers_run(subject: Subject) -> set[str]:
    """Linear layers and convolutions that the forward of the made batch runs; none where no batch is made or it fails."""
    ran: set[str] = set()
    batch = {}
    try:
        batch, _ = make_batch(subject)
        layers = {path: layer for path, layer in subject.model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d))}
        handles = [layer.register_forward_hook(lambda *_, path=path: ran.add(path)) for path, layer in layers.items()]
        with runnable(subject), undisturbed(subject.model), torch.no_grad():
            subject.model(**own_copy(batch))
    except (InspectionError, RuntimeError, ValueError, TypeError, AttributeError):
        return set()
    for handle in handles:
        handle.remove()
    return ran


@pytest.mark.parametrize(("family", "kind"), ROWS)
def test_some_of_the_model_runs_only_with_its_row(family, kind, monkeypatch):
    try:
        subject = load(Request(model=f"arch:{kind}"), lambda _: None)
    except InspectionError as error:
        if re.search("knows no model type|has no model class", str(error)):
            pytest.skip(f"this transformers does not build {kind}")
        raise
    materialise(subject.model)
    with_row = layers_run(subject)
    monkeypatch.setattr(families, "FAMILIES", tuple(other for other in families.FAMILIES if other is not family))
    assert with_row - layers_run(subject)


def test_a_row_is_for_forwards_that_take_its_argument():
    class TextAlone(nn.Module):
        def __init__(self):
            super().__init__()
            text = {"layers": 1, "embed_dim": 16, "ffn_dim": 16, "attention_heads": 2, "vocab_size": 64}
            vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
            self.model = Kosmos2ForConditionalGeneration(Kosmos2Config(text_config=text, vision_config=vision))

        def forward(self, input_ids):
            return self.model(input_ids=input_ids)

    batch, _ = make_batch(Subject(model=TextAlone(), source="test"))
    assert batch["input_ids"].shape == (1, TEXT_LENGTH)
