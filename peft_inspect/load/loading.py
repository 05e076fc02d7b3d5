"""What the user named → the live subject of the inspection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from peft_inspect.load.build import Plan, build
from peft_inspect.load.files import read_mapping
from peft_inspect.load.lora import Asked, asked
from peft_inspect.load.model_class import model_class
from peft_inspect.load.model_config import config_from, default_config
from peft_inspect.load.named import Architecture, Code, LocalFile, LocalFolder, named
from peft_inspect.load.user_code import UserCode, call
from peft_inspect.load.wrap import is_weightless, is_wrapped, wrap
from peft_inspect.records import InspectionError, Request, Subject

Step = Callable[[str], None]


def load(request: Request, step: Step) -> Subject:
    """Build or import the model that was named, wrap it as asked, and collect what is to be run with it.

    Args:
        request: what the user asked for.
        step: told what is being done, for a progress display.

    Raises:
        InspectionError: something named is missing, malformed or does not load; the message says what to do.
    """
    lora = asked(request)
    name = request.model or (lora.recognised.model if lora else None)
    if name is None:
        raise InspectionError("no MODEL: name one, or a --lora file that names its base model")
    code = UserCode()
    subject = _from_code(name, code, step) if isinstance(named(name), Code) else _built(name, request, lora, step)
    return _wrapped(subject, lora, step)


def live(
    model: torch.nn.Module,
    *,
    batch: Mapping[str, Any] | None,
    loss: Callable[[Any, Any], torch.Tensor] | None,
    optimizer: torch.optim.Optimizer | None,
    adapter: str | None,
) -> Subject:
    """The subject for a model that the caller holds already. Nothing is loaded onto it; an adapter file is only read."""
    if not isinstance(model, torch.nn.Module):
        raise InspectionError(f"a {type(model).__name__} cannot be inspected: pass the torch.nn.Module that is trained")
    return Subject(model, type(model).__name__, "none" if is_weightless(model) else "user", batch, loss, optimizer)


def _from_code(name: str, code: UserCode, step: Step) -> Subject:
    step(f"calling {name}")
    model = code.object(name)
    if not isinstance(model, torch.nn.Module):
        if not callable(model):
            raise InspectionError(f"{name} is a {type(model).__name__}: name a torch.nn.Module, or a callable that returns one")
        model = call(name, model)
    if not isinstance(model, torch.nn.Module):
        raise InspectionError(f"{name} returned a {type(model).__name__}: it must return the torch.nn.Module that is trained")
    return Subject(model, name, "none" if is_weightless(model) else "user", source_file=code.file(name))


def _built(name: str, request: Request, lora: Asked | None, step: Step) -> Subject:
    plan = _plan(name, request, lora)
    weights = request.weights or "none"
    step(f"building {plan.model_class.__name__}")
    form = named(name)
    file = str(form.path) if isinstance(form, LocalFile) else None
    return Subject(build(plan, weights), name, weights, source_file=file)


def _plan(name: str, request: Request, lora: Asked | None) -> Plan:
    form = named(name)
    if isinstance(form, Architecture):
        config = default_config(form.model_type, request.config_fields)
    elif isinstance(form, LocalFile):
        config = config_from(read_mapping(form.path), request.config_fields, str(form.path))
    elif isinstance(form, LocalFolder):
        config = config_from(read_mapping(form.path / "config.json"), request.config_fields, str(form.path))
    else:
        raise InspectionError("not yet")
    return Plan(name, config, model_class(config, lora.task_type if lora else None, request.base_class))


def _wrapped(subject: Subject, lora: Asked | None, step: Step) -> Subject:
    if lora is None:
        return subject
    if is_wrapped(subject.model):
        raise InspectionError(
            f"{subject.source} carries an adapter already: leave out --lora and the LoRA flags, or name the model before it is wrapped"
        )
    step("wrapping")
    return replace(
        subject,
        model=wrap(subject.model, lora.fields),
        requested=lora.fields,
        source_file=lora.file or subject.source_file,
        notes=(*subject.notes, *lora.notes),
    )
