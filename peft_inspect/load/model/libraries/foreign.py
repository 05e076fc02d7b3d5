"""What is needed to build a model of a library other than transformers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Literal

import torch
from torch.nn.modules.module import register_module_module_registration_hook

from peft_inspect.load.bounds import Counted
from peft_inspect.load.model.memory import require_memory
from peft_inspect.load.quiet import quiet
from peft_inspect.load.words import did_you_mean
from peft_inspect.records import InspectionError, text_of
from peft_inspect.reversible import hooked


@dataclass(frozen=True)
class Foreign:
    """A model class of another library with its config."""

    class_name: str
    create: Callable[[], torch.nn.Module]  # builds it with fresh weights on the current device
    load: Callable[[], torch.nn.Module]  # builds it with the weights of the checkpoint
    note: str  # what was recognised
    batch: Callable[[], Mapping[str, Any] | None]  # inputs, as far as the config tells them


def build(foreign: Foreign, weights: Literal["none", "random", "pretrained"], name: str) -> torch.nn.Module:
    """The model in train mode; on the meta device where `weights` is "none".

    Raises:
        InspectionError: the library refuses the config, or the weights do not fit into memory.
    """
    counting = partial(register_module_module_registration_hook, Counted(name))
    try:
        with quiet():
            with torch.device("meta"), hooked(counting):
                weightless = foreign.create()
            if weights == "none":
                return weightless.train()
            require_memory(weightless, name)
            return (foreign.create() if weights == "random" else foreign.load()).train()
    except InspectionError:
        raise
    except Exception as error:  # each library checks its configs in its own way
        raise InspectionError(f"{foreign.class_name} does not build from the config of {name}: {text_of(error)}") from error


def library(package: str, what: str) -> ModuleType:
    """Import an optional package.

    Raises:
        InspectionError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = package.replace("_", "-")
        raise InspectionError(f"{what} is a model of {extra}, which is not installed: pip install 'peft-inspect[{extra}]'") from error


def with_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The config with values replaced.

    Raises:
        InspectionError: a key does not exist.
    """
    for key in overrides:
        if key not in config:
            raise InspectionError(f"{key}: the config has no {key!r}{did_you_mean(key, config)}")
    return {**config, **overrides}
