"""Whose forward is called, what it accepts and what its docstring says about that, and the configs that size it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from peft_inspect.internals import ORIGINAL
from peft_inspect.walk import defined_in

_DOCUMENTED = re.compile(r"^\s*(\w+) \(`([^`]*)`(?: of shape `?\(?([^`)]*)\)?`?)?", re.MULTILINE)
_PASSED_DOWN = re.compile(r"(pixel_values|(image|video)_\w*(ids|thw|hw|sizes)$|input_features|input_values)")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_DEPTH = 4  # forwards between the model and the tower that names an input
_MAIN = ("input_ids", "pixel_values", "input_features", "input_values")
_SPELLINGS = {
    "input_ids": re.compile(r"^((input_)?(ids|tokens)|token_ids|text(_input)?_ids|text_tokens|text)$"),
    "attention_mask": re.compile(r"^((attn|input|text|token|padding)_)?mask$"),
    "pixel_values": re.compile(r"^(images?|imgs?|pixels|image_values|frames)$"),
    "labels": re.compile(r"^(\w+_)?(labels?|targets?)$|^y$"),
}
_SOUND = re.compile(
    r"^(input_)?(raw_)?(audios?|waveforms?|wavs?|speech|sound|mels?|spectrograms?|features|audio_(values|features|inputs?))$"
)
_ANYTHING = re.compile(r"^(x|inputs?|data|samples?)$")


@dataclass(frozen=True)
class Receiver:
    """The module whose signature decides, found through wrappers that only pass their inputs on."""

    called: torch.nn.Module  # what the batch is given to
    module: torch.nn.Module  # what reads it
    parameters: Mapping[str, inspect.Parameter]
    config: PretrainedConfig | None
    models: tuple[PreTrainedModel, ...]  # outermost transformers models inside `module`, itself included
    names: Mapping[str, str] = field(default_factory=dict)  # transformers' name → the user's own, where `parameters` has the former

    def spelled(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs under the names that the forward takes."""
        return {self.names.get(name, name): value for name, value in inputs.items()}

    def known(self, names: Iterable[str]) -> list[str]:
        """Those names of the forward's own that are inputs, as transformers spells them."""
        spelling = {own: name for name, own in self.names.items()}
        return [name for name in (spelling.get(own, own) for own in names) if name in self.parameters]

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
    def _described(self) -> list[tuple[str, str, str]]:
        """Name, type and shape of each input in the docstring of the forward."""
        return _DOCUMENTED.findall(inspect.getdoc(type(self.module).forward) or "")

    @cached_property
    def documented(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the dimensions of each input whose shape is documented."""
        parts = ((name, [part.strip(" ()'") for part in shape.split(",")]) for name, _, shape in self._described if shape)
        return {name: tuple(filter(None, dimensions)) for name, dimensions in parts}

    @cached_property
    def documented_type(self) -> Mapping[str, str]:
        """What each input is documented to be, such as `torch.LongTensor`."""
        return {name: kind for name, kind, _ in self._described}


def find_receiver(model: torch.nn.Module) -> Receiver:
    """Look through PEFT, compile and parallel wrappers, and through forwards that only take `*args, **kwargs`."""
    module = _unwrapped(model)
    parameters, open_ended = _parameters(module)
    models = tuple(_outermost(module))
    if not parameters and models:
        module = models[0]
        parameters, open_ended = _parameters(module)
    own_config: Any = getattr(module, "config", None)
    config = models[0].config if models else own_config if isinstance(own_config, PretrainedConfig) else None
    if isinstance(module, PreTrainedModel) and open_ended:
        further = passed_down(module).items()
        parameters |= {name: value for name, value in further if _PASSED_DOWN.match(name) and name not in parameters}
    if isinstance(module, PreTrainedModel) or not models:
        return Receiver(model, module, parameters, config, models)
    known = _parameters(models[0])[0]
    names = _meanings(parameters, known)
    parameters = {name: parameters[own] for name, own in names.items()}
    return Receiver(model, module, {**known, **parameters} if open_ended else parameters, config, models, names)


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The innermost module below wrappers of PEFT, compile and data parallelism, which pass their inputs on unchanged."""
    wrapper: Any = module
    inner: object = None
    if hasattr(module, "peft_config") and hasattr(module, "get_base_model"):
        inner = wrapper.get_base_model()
    elif hasattr(module, ORIGINAL):
        inner = getattr(wrapper, ORIGINAL)
    elif defined_in(type(module)).startswith(("torch.nn.parallel", "torch.distributed")):
        inner = getattr(module, "module", None)
    return _unwrapped(inner) if isinstance(inner, torch.nn.Module) and inner is not module else module


def _parameters(module: torch.nn.Module) -> tuple[dict[str, inspect.Parameter], bool]:
    """Named parameters of the forward, and whether it takes any keyword besides."""
    parameters = inspect.signature(module.forward).parameters.values()
    named = {parameter.name: parameter for parameter in parameters if parameter.kind in _NAMED}
    return named, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _outermost(module: torch.nn.Module) -> Iterator[PreTrainedModel]:
    if isinstance(module, PreTrainedModel):
        yield module
        return
    for child in module._modules.values():
        if child is not None:
            yield from _outermost(child)


def passed_down(module: torch.nn.Module, depth: int = _DEPTH) -> Mapping[str, inspect.Parameter]:
    """Parameters of the forwards of its children to which the forward of `module` passes its own `**kwargs`, by name."""
    found: dict[str, inspect.Parameter] = {}
    for child in _given_everything(module) if depth else ():
        taken = inspect.signature(child.forward).parameters.values()
        found |= {parameter.name: parameter for parameter in taken if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
        found |= passed_down(child, depth - 1)
    return found


def _given_everything(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Modules that the forward calls as `self.name(..., **kwargs)`."""
    own = next((p.name for p in inspect.signature(module.forward).parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD), None)
    for name in _given_all(inspect.unwrap(type(module).forward), own) if own is not None else ():
        child = getattr(module, name, None)
        if isinstance(child, torch.nn.Module):
            yield child


@cache
def _given_all(forward: Any, own: str) -> tuple[str, ...]:
    """Attributes of `self` that a forward calls with its `**own`."""
    try:
        code = ast.parse(textwrap.dedent(inspect.getsource(forward)))
    except (OSError, TypeError, SyntaxError):  # code without a file
        return ()
    return tuple(
        node.func.attr
        for node in ast.walk(code)
        if isinstance(node, ast.Call)
        and any(keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == own for keyword in node.keywords)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
    )


def _meanings(names: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, str]:
    """Transformers' name → the user's, for every input of the user's own forward; `known` are those of the model inside."""
    meaning: dict[str, str] = {}
    for name in names:
        meaning.setdefault(name if name in known else _meaning(name, known), name)
    rest = set(names) - set(meaning.values())
    return {**meaning, **{name: name for name in rest}}


def _meaning(name: str, known: Mapping[str, Any]) -> str:
    for meaning, spelling in _SPELLINGS.items():
        if spelling.match(name):
            return meaning
    candidates = _MAIN if _ANYTHING.match(name) else _MAIN[2:] if _SOUND.match(name) else ()
    return next((main for main in candidates if main in known), name)
