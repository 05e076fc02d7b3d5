"""Whether a layer that nothing called waits for other inputs, or is out of use."""

import pytest
import torch
from torch import nn

from peft_inspect.structure.source.conditions import waiting


class Behind(nn.Module):
    """What each of the modules below holds."""

    def __init__(self, fused=None):
        super().__init__()
        self.body = nn.Linear(2, 2)
        self.extra = nn.Linear(2, 2)
        self.fused = fused


class UnderIf(Behind):
    def forward(self, x, image=None):
        x = self.body(x)
        if image is not None:
            x = x + self.extra(image)
        return x


class AfterReturn(Behind):
    def forward(self, x, image=None):
        x = self.body(x)
        if image is None:
            return x
        return x + self.extra(image)


class InMethod(Behind):
    def features(self, image):
        return self.extra(image)

    def forward(self, x, **kwargs):
        image = kwargs.get("image")
        return self.body(x) + (0 if image is None else self.features(image))


class ForGeneration(Behind):
    def forward(self, x):
        return self.body(x)

    def generate(self, x):
        return self.extra(x)


class OnDerivedValue(Behind):
    def forward(self, x, image=None):
        given = image is not None
        return self.body(x) + self.extra(image) if given else self.body(x)


class OnOwnState(Behind):
    def forward(self, x):
        fused = self.fused
        return self.body(x) if fused is not None else self.extra(x)


class OnEither(Behind):
    def forward(self, x, image=None):
        if image is not None:
            x = x + self.extra(image)
        if self.fused is None:
            x = self.extra(x)
        return x


class Unconditional(Behind):
    def forward(self, x):
        return self.extra(self.body(x))


class Nowhere(Behind):
    def forward(self, x):
        return self.body(x)


class Overridden(Unconditional):
    def forward(self, x):
        return self.body(x) @ torch.eye(2)


@pytest.mark.parametrize("kind", [UnderIf, AfterReturn, InMethod, ForGeneration, OnDerivedValue])
def test_a_layer_behind_the_inputs_waits_and_its_line_is_named(kind):
    found = waiting(kind(), ["extra"], {""})
    assert "self.extra" in found["extra"].code


@pytest.mark.parametrize("kind", [OnOwnState, OnEither, Unconditional, Nowhere, Overridden])
def test_a_layer_behind_the_modules_own_state_is_out_of_use(kind):
    assert waiting(kind(torch.eye(2)), ["extra"], {""}) == {}


@pytest.mark.parametrize("forward", [Unconditional.forward, Nowhere.forward])
def test_a_forward_patched_onto_the_instance_is_the_one_that_counts(forward):
    module = UnderIf()
    module.forward = forward.__get__(module)
    assert waiting(module, ["extra"], {""}) == {}


def test_a_layer_whose_forward_did_not_run_waits_though_another_method_did():
    found = waiting(nn.ModuleDict({"model": Unconditional()}), ["model.extra"], {"", "model.body"})
    assert "self.extra" in found["model.extra"].code


def test_the_members_of_a_list_go_by_the_name_of_the_list():
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.scales = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

        def forward(self, x, level):
            return self.scales[0](x) if level else x

    assert set(waiting(nn.ModuleDict({"model": Scales()}), ["model.scales.1"], {"model"})) == {"model.scales.1"}


def test_a_member_that_the_inputs_pick_from_a_list_waits():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

        def forward(self, x, step):
            return self.heads[step](x)

    assert "self.heads[step]" in waiting(nn.ModuleDict({"model": Heads()}), ["model.heads.1"], {"model"})["model.heads.1"].code


def test_a_member_picked_by_a_number_of_the_code_does_not_wait():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

        def forward(self, x):
            return self.heads[0](x)

    assert waiting(nn.ModuleDict({"model": Heads()}), ["model.heads.1"], {"model"}) == {}
