"""A MODEL form → the base model, not wrapped yet unless the user's code wraps it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from peft_inspect.load.alternatives import alternatives
from peft_inspect.load.build import Plan, Weights, build
from peft_inspect.load.files import read_mapping
from peft_inspect.load.location import Folder, Location
from peft_inspect.load.model_class import model_class
from peft_inspect.load.model_config import config_from, default_config
from peft_inspect.load.named import Architecture, Code, HubRepo, LocalFile, LocalFolder, Named
from peft_inspect.load.nearest import make_valid
from peft_inspect.load.remote_code import has_code, remote_classes
from peft_inspect.load.user_code import UserCode, call
from peft_inspect.load.wrap import is_weightless
from peft_inspect.records import InspectionError, Request, Subject

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PretrainedConfig

_CONFIG = "config.json"


def location_of(form: Named) -> Location | None:
    """Where the files of a MODEL form lie; None for forms without files."""
    if isinstance(form, LocalFolder):
        return Folder(form.path)
    if isinstance(form, HubRepo):
        from peft_inspect.load.hub import Repository

        return Repository(form.repo, form.revision)
    return None


def base_model(name: str, form: Named, request: Request, task_type: str | None, code: UserCode, step: Callable[[str], None]) -> Subject:
    """Build the model, or let the user's code build it.

    Args:
        name: the model as it was named.
        form: what the name means.
        request: for weights, overrides, class and trust.
        task_type: PEFT's task type, which decides the class where the config leaves it open.
        code: the user's modules.
        step: told what is being done.

    Raises:
        InspectionError: it cannot be built; the message says what to do.
    """
    if isinstance(form, Code):
        return _from_code(name, request, code, step)
    plan, file, folder = _plan(name, form, request, task_type, step)
    notes = _notes(plan.config)
    if isinstance(form, Architecture):
        notes = (*notes, *make_valid(plan.config))
    if request.reduce:
        from peft_inspect.load.reduce import reduced

        config, note = reduced(plan.config)
        plan, notes = Plan(plan.name, config, plan.model_class), (*notes, note)
    weights = request.weights or "none"
    step(f"building {plan.model_class.__name__}")
    model, more = _build(plan, weights, form, task_type)
    return Subject(model, name, weights, source_file=file, folder=folder, notes=(*notes, *more))


def _build(plan: Plan, weights: Weights, form: Named, task_type: str | None) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The model; a default configuration that leaves values open is completed, with a note."""
    try:
        return build(plan, weights), ()
    except InspectionError as error:
        if not isinstance(form, Architecture) or isinstance(error.__cause__, ImportError):
            raise
        for other, note in alternatives(plan, task_type):
            with contextlib.suppress(InspectionError):
                return build(other, weights), (note,)
        raise


def _from_code(name: str, request: Request, code: UserCode, step: Callable[[str], None]) -> Subject:
    for option, given in (("--config-set", request.config_fields), ("--weights", request.weights), ("--reduce", request.reduce)):
        if given:
            raise InspectionError(f"{option} has no say over a model that your own code builds: leave it out, or change {name}")
    step(f"calling {name}")
    model = code.object(name)
    if not isinstance(model, torch.nn.Module):
        if not callable(model):
            raise InspectionError(f"{name} is a {type(model).__name__}: name a torch.nn.Module, or a callable that returns one")
        model = call(name, model)
    if not isinstance(model, torch.nn.Module):
        raise InspectionError(f"{name} returned a {type(model).__name__}: it must return the torch.nn.Module that is trained")
    return Subject(model, name, "none" if is_weightless(model) else "user", source_file=code.file(name))


def _plan(
    name: str, form: Architecture | LocalFile | LocalFolder | HubRepo, request: Request, task_type: str | None, step: Callable[[str], None]
) -> tuple[Plan, str | None, str | None]:
    """What to build, the config file that findings are shown on, and the folder with processor files."""
    if isinstance(form, Architecture):
        config = default_config(form.model_type, request.config_fields)
        return Plan(name, config, model_class(config, task_type, request.base_class)), None, None
    location = Folder(form.path.parent) if isinstance(form, LocalFile) else location_of(form)
    assert location is not None
    step(f"reading the config of {name}")
    file = form.path if isinstance(form, LocalFile) else location.find(_CONFIG)
    if file is None:
        raise InspectionError(location.absent(_CONFIG))
    data = read_mapping(file)
    if request.trust_remote_code and has_code(data):
        config, chosen = remote_classes(data, location, request.config_fields, task_type)
    else:
        config = config_from(data, request.config_fields, name)
        chosen = model_class(config, task_type, request.base_class)
    plan = Plan(name, config, chosen, location.checkpoint)
    wants_processor = any((request.text, request.image, request.audio))
    folder = location.processor() if wants_processor or isinstance(location, Folder) else file.parent
    return plan, None if isinstance(form, HubRepo) else str(file), None if folder is None else str(folder)


def _notes(config: PretrainedConfig) -> tuple[str, ...]:
    quantization = getattr(config, "quantization_config", None)
    if quantization is None:
        return ()
    method = quantization.get("quant_method") if isinstance(quantization, dict) else getattr(quantization, "quant_method", None)
    named = getattr(method, "value", method) or "unnamed method"
    return (f"the checkpoint is quantised ({named}); its layers are built as plain linear layers of the same shapes",)
