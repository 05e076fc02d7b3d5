"""Modules that a base model's checkpoint does not bring: heads of a task, and what users add to a pretrained model."""

from __future__ import annotations

import dis
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from peft_inspect.structure.untouched import untouched_layers
from peft_inspect.structure.wrappers import class_of
from peft_inspect.walk import defined_in

if TYPE_CHECKING:
    from peft_inspect.structure.bare import BareModel

_TASK = re.compile(r"Classification|QuestionAnswering|MultipleChoice|Regression|Scoring|RewardModel")
_PRETRAINING = re.compile(r"For(MaskedLM|PreTraining|CausalLM|ConditionalGeneration)$|LMHeadModel$")
_CONTAINERS = (nn.ModuleDict, nn.ModuleList, nn.Sequential)
_DYNAMIC = {"add_module", "register_module", "setattr", "__setattr__"}


def fresh_paths(bare: BareModel) -> frozenset[str]:
    """Live paths of fresh modules and of all below them.

    Where the model was loaded, transformers has marked what the checkpoint brought. Where it was only built, the head
    of a task class counts as fresh, and so does a module that the code of its parent's class does not know. Beside the
    pretrained model in a module of the user's own, layers are fresh that still are as torch initialised them.
    """
    fresh = {name for name in (*_heads(bare), *_added(bare)) if _has_unloaded_weights(bare.modules[name])}
    fresh.update(_around(frozenset(untouched_layers(bare.modules)), bare))
    return frozenset(live for name, live in bare.live.items() if name in fresh or any(outer in fresh for outer in _outer(name)))


def _around(layers: frozenset[str], bare: BareModel) -> Iterator[str]:
    """These layers, and the modules all of whose weights are theirs."""
    holders = {outer for layer in layers for outer in _outer(layer)}
    weighed = {name for name, module in bare.modules.items() if any(p is not None and p.dim() > 1 for p in module._parameters.values())}
    yield from layers
    yield from (holder for holder in holders if layers.issuperset(name for name in weighed if name.startswith(f"{holder}.")))


def _heads(bare: BareModel) -> Iterator[str]:
    """What a class for a task puts on top of the pretrained network."""
    model = bare.modules[""]
    if class_of(model).__name__ in (getattr(getattr(model, "config", None), "architectures", None) or ()):
        return  # saved as this very class, so its checkpoint brings the head
    if isinstance(model, PreTrainedModel) and _TASK.search(class_of(model).__name__):
        cls: Any = class_of(model)
        known = {model.base_model_prefix, *_of_pretraining(cls)}
        for name, child in model._modules.items():
            if child is not None and name not in known and not isinstance(bare.modules[name], PreTrainedModel):
                yield name


@functools.cache
def _of_pretraining(cls: Any) -> frozenset[str]:
    """Names that the classes of the same architecture set which are made to be pretrained: a part of the head may be theirs too."""
    beside = vars(sys.modules[defined_in(cls)])
    models: list[Any] = [value for name, value in beside.items() if _PRETRAINING.search(name) and isinstance(value, type)]
    made = [dis.get_instructions(model.__init__) for model in models]
    return frozenset(step.argval for steps in made for step in steps if step.opname == "STORE_ATTR")


def _added(bare: BareModel) -> Iterator[str]:
    """Modules that a class of transformers was not written to have."""
    for name in bare.modules:
        parent, _, step = name.rpartition(".")
        if name and not step.isdecimal() and parent in bare.modules:
            cls: Any = class_of(bare.modules[parent])
            known = _attributes(cls)
            if known is not None and step not in known:
                yield name


@functools.cache
def _attributes(cls: Any) -> frozenset[str] | None:
    """Every name that the code of a model class of transformers mentions.

    None for other classes, and where names are computed, as they are of what a container holds. A class of the user's own
    that is derived from one is read as the class it is derived from.
    """
    lineage = [base for base in cls.__mro__ if defined_in(base).startswith("transformers.models.")]
    if not lineage or issubclass(cls, _CONTAINERS):
        return None
    names: set[str] = set()
    for base in lineage:
        for value in vars(base).values():
            code = getattr(inspect.unwrap(value), "__code__", None) if callable(value) else None
            if isinstance(code, CodeType):
                names.update(_mentioned(code))
    return None if names & _DYNAMIC else frozenset(names)


def _mentioned(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _mentioned(constant)


def _has_unloaded_weights(module: nn.Module) -> bool:
    return any(not getattr(parameter, "_is_hf_initialized", False) for parameter in module.parameters())


def _outer(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))
