"""Whose forward is called, what it accepts, and the configs that say what its inputs look like."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from peft_inspect.batch.handed_on import handed_on
from peft_inspect.batch.names import canonical

_SHAPE = re.compile(r"^\s*(\w+) \(`([^`]*)`(?: of shape `?\(?([^`)]*)\)?`?)?", re.MULTILINE)
_CONTENT = re.compile(r"(pixel_values|(image|video)_\w*(ids|thw|hw|sizes)$|input_features|input_values)")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Target:
    """The module whose signature decides, found through wrappers that only pass their inputs on."""

    called: torch.nn.Module  # what the batch is given to
    module: torch.nn.Module  # what reads it
    parameters: Mapping[str, inspect.Parameter]
    config: PretrainedConfig | None
    models: tuple[PreTrainedModel, ...]  # outermost transformers models inside `module`, itself included
    names: Mapping[str, str] = field(default_factory=dict)  # canonical name → the user's own, where `parameters` has the former

    def spelled(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs under the names that the forward takes."""
        return {self.names.get(name, name): value for name, value in inputs.items()}

    @property
    def own(self) -> bool:
        """Whether the forward is the user's own, so that only a trial tells what its labels look like."""
        return not isinstance(self.module, PreTrainedModel)

    @property
    def composite(self) -> bool:
        """Whether it has parts with configs of their own."""
        return self.config is not None and any(isinstance(value, PretrainedConfig) for value in vars(self.config).values())

    @property
    def required(self) -> tuple[str, ...]:
        """Inputs without a default."""
        return tuple(name for name, parameter in self.parameters.items() if parameter.default is inspect.Parameter.empty)

    @cached_property
    def documented(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the dimensions of each input, as the forward's docstring gives them."""
        found = _SHAPE.findall(inspect.getdoc(type(self.module).forward) or "")
        return {name: tuple(part.strip(" ()'") for part in shape.split(",") if part.strip(" ()'")) for name, _, shape in found if shape}

    @cached_property
    def documented_type(self) -> Mapping[str, str]:
        """What the forward's docstring says each input is, such as `torch.LongTensor`."""
        return {name: kind for name, kind, _ in _SHAPE.findall(inspect.getdoc(type(self.module).forward) or "")}


def find_target(model: torch.nn.Module) -> Target:
    """Look through PEFT, compile and parallel wrappers, and through forwards that only take `*args, **kwargs`."""
    module = _unwrapped(model)
    parameters, open_ended = _parameters(module)
    models = tuple(_outermost(module))
    if not parameters and models:
        module = models[0]
        parameters, open_ended = _parameters(module)
    config = models[0].config if models else _config(module)
    if isinstance(module, PreTrainedModel) and open_ended:
        parameters |= {name: value for name, value in handed_on(module).items() if _CONTENT.match(name) and name not in parameters}
    if isinstance(module, PreTrainedModel) or not models:
        return Target(model, module, parameters, config, models)
    known = _parameters(models[0])[0]
    names = canonical(parameters, known)
    parameters = {name: parameters[own] for name, own in names.items()}
    return Target(model, module, {**known, **parameters} if open_ended else parameters, config, models, names)


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The innermost module below wrappers that hand their inputs on unchanged."""
    while True:
        inner = _inside(module)
        if inner is None or inner is module:
            return module
        module = inner


def _inside(module: torch.nn.Module) -> torch.nn.Module | None:
    """What a wrapper of PEFT, compile or data parallelism wraps."""
    base: Any = getattr(module, "get_base_model", None)
    if base is not None and hasattr(module, "peft_config"):
        wrapped: torch.nn.Module = base()
        return wrapped
    for attribute in ("_orig_mod", "module"):
        candidate = getattr(module, attribute, None)
        if isinstance(candidate, torch.nn.Module) and _passes_on(module, attribute):
            return candidate
    return None


def _passes_on(module: torch.nn.Module, attribute: str) -> bool:
    return attribute == "_orig_mod" or type(module).__module__.startswith(("torch.nn.parallel", "torch.distributed"))


def _parameters(module: torch.nn.Module) -> tuple[dict[str, inspect.Parameter], bool]:
    """Named parameters of the forward, and whether it takes any keyword besides."""
    parameters = inspect.signature(module.forward).parameters.values()
    named = {parameter.name: parameter for parameter in parameters if parameter.kind in _NAMED}
    return named, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _outermost(module: torch.nn.Module) -> Iterator[PreTrainedModel]:
    if isinstance(module, PreTrainedModel):
        yield module
        return
    for child in module.children():
        yield from _outermost(child)


def _config(module: torch.nn.Module) -> PretrainedConfig | None:
    config: Any = getattr(module, "config", None)
    return config if isinstance(config, PretrainedConfig) else None
