"""The model in what the user's code hands over: a module, alone or with its tokenizer and optimizer, or in the trainer that trains it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from peft_inspect.load.lora.wrap import is_weightless, is_wrapped
from peft_inspect.load.model.whole import require_tree
from peft_inspect.load.user_code import UserCode, call, only_trains, whole_program
from peft_inspect.load.words import listed
from peft_inspect.records import InspectionError, Request, Subject

_WITHOUT_ARGUMENTS = "write a callable that needs none and calls it with the values that you train with"


def model_of_code(name: str, request: Request, code: UserCode) -> Subject:
    """What `name` is or returns, as the subject: the one model in it, and its optimizer where one comes with it.

    Args:
        name: as `file.py:name` or `package.module:name`.
        request: for the options that have no say here.
        code: the user's modules.

    Raises:
        InspectionError: there is no model in it, or several; the message says what to do.
    """
    for option, given in (("--config-set", request.config_fields), ("--weights", request.weights), ("--reduce", request.reduce)):
        if given:
            raise InspectionError(f"{option} has no say over a model that your own code builds: leave it out, or change {name}")
    found, gave = code.object(name), "is"
    if not issubclass(type(found), torch.nn.Module) and callable(found):
        if only_trains(found):  # to call it might be to train for hours
            raise InspectionError(
                f"{name} trains and returns no model, so it is not called: name a callable that returns the model, or {whole_program(name)}"
            )
        found, gave = call(name, found, otherwise=f"{_WITHOUT_ARGUMENTS}, or {whole_program(name)}"), "returned"
    said = f"{name} {gave} {_article(found)}"
    model, notes = _model_in(found, said, name)
    require_tree(model, f"{name} returned a {type(model).__name__}")
    subject = Subject(model, name, "none" if is_weightless(model) else "user", source_file=code.file(name), entry=code.entry(name))
    subject.notes = notes
    subject.optimizer = next((part for part in _parts(found) if isinstance(part, torch.optim.Optimizer)), None)
    return subject


def _model_in(found: Any, said: str, name: str) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The model, and what the report should say of where it was."""
    if issubclass(type(found), torch.nn.Module):
        return found, ()
    if isinstance(held := getattr(found, "model", None), torch.nn.Module):  # transformers' Trainer and those built on it, pipelines
        return held, (f"{said}, and its model is inspected; with its own batch, loss and optimizer: {whole_program(name)}",)
    models = [part for part in _parts(found) if isinstance(part, torch.nn.Module)]
    adapted = [model for model in models if is_wrapped(model)]
    chosen = models if len(models) == 1 else adapted
    if len(chosen) == 1:
        return chosen[0], (f"{said}: the {type(chosen[0]).__name__} in it is inspected",)
    if models:
        kinds = listed(type(model).__name__ for model in models)
        raise InspectionError(f"{said} with {len(models)} models ({kinds}): name a callable that returns the one that is trained")
    raise InspectionError(f"{said}: name a torch.nn.Module or a callable that returns the one that is trained, or {whole_program(name)}")


def _parts(found: Any) -> Iterable[Any]:
    """What a tuple, a list or a dictionary holds."""
    if isinstance(found, Mapping):
        return tuple(found.values())
    return tuple(found) if isinstance(found, tuple | list) else ()


def _article(found: Any) -> str:
    if found is None:
        return "nothing"
    kind = type(found).__name__
    return f"{'an' if kind[:1] in 'AEIOaeiou' else 'a'} {kind}"
