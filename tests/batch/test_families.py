"""Each row of the table of families, on the architecture at its full size, without weights."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from peft_inspect.batch import families, make_batch
from peft_inspect.load import load
from peft_inspect.records import InspectionError, Request, Subject
from peft_inspect.run.runs import own_copy, runnable
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.run.weightless import materialise

TYPES = [pytest.param(kind, id=kind) for family in families.FAMILIES for kind in family.types]


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


@pytest.mark.parametrize("kind", TYPES)
def test_a_row_makes_a_batch_that_fits_where_none_would_without_it(kind, monkeypatch):
    try:
        subject = load(Request(model=f"arch:{kind}"), lambda _: None)
    except InspectionError as error:
        if re.search("knows no model type|has no model class", str(error)):
            pytest.skip(f"this transformers does not build {kind}")
        raise
    materialise(subject.model)
    with_row = layers_run(subject)
    monkeypatch.setattr(families, "FAMILIES", ())
    assert with_row > layers_run(subject)


def test_every_row_says_what_it_knows():
    assert all(family.types and len(family.why) > 20 for family in families.FAMILIES)
    types = [kind for family in families.FAMILIES for kind in family.types]
    assert len(types) == len(set(types))
