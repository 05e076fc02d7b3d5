"""A MODEL form → the base model, not wrapped yet unless the user's code wraps it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_inspect.load.files import read_mapping
from peft_inspect.load.model import libraries
from peft_inspect.load.model.alternatives import alternatives
from peft_inspect.load.model.build import Blueprint, Weights, build
from peft_inspect.load.model.kernels import without_kernels
from peft_inspect.load.model.layerdrop import without_layerdrop
from peft_inspect.load.model.location import Folder, Location
from peft_inspect.load.model.model_class import model_class
from peft_inspect.load.model.model_config import config_from, default_config
from peft_inspect.load.model.named import Architecture, Code, HubRepo, LocalFile, LocalFolder, Named
from peft_inspect.load.model.own_code import model_of_code
from peft_inspect.load.model.remote_code import has_code, remote_classes
from peft_inspect.load.model.valid_config import make_valid
from peft_inspect.load.user_code import UserCode
from peft_inspect.records import InspectionError, Request, Subject

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Step = Callable[[str], None]
_CONFIG = "config.json"


def location_of(form: Named) -> Location | None:
    """Where the files of a MODEL form lie; None for forms without files."""
    if isinstance(form, LocalFile):
        return Folder(form.path.parent)
    if isinstance(form, LocalFolder):
        return Folder(form.path)
    if isinstance(form, HubRepo):
        from peft_inspect.load.model.hub import Repository

        return Repository(form.repo, form.revision)
    return None


def base_model(name: str, form: Named, request: Request, task_type: str | None, code: UserCode, step: Step) -> Subject:
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
        step(f"calling {name}")
        return model_of_code(name, request, code)
    if isinstance(form, Architecture):
        return _from_type(name, form.model_type, request, task_type, step)
    return _from_files(name, form, request, task_type, step)


def _from_type(name: str, model_type: str, request: Request, task_type: str | None, step: Step) -> Subject:
    config = default_config(model_type, request.config_fields)
    notes = make_valid(config)
    blueprint = Blueprint(name, config, model_class(config, task_type, request.base_class))
    subject = _built(blueprint, request, step, alternatives(blueprint, task_type))
    what = f"the default configuration of {model_type}, not a released model: a hub id names one"
    return replace(subject, notes=(what, *notes, *subject.notes))


def _from_files(name: str, form: Named, request: Request, task_type: str | None, step: Step) -> Subject:
    location = location_of(form)
    assert location is not None
    step(f"reading the config of {name}")
    file = form.path if isinstance(form, LocalFile) and form.path.name != "model_index.json" else location.find(_CONFIG)
    data = None if file is None else read_mapping(file)
    foreign = libraries.recognise(location, data, request.config_fields)
    if foreign is not None:
        subject = _from_library(name, foreign, request, step)
    elif data is None or file is None:
        raise InspectionError(location.absent(_CONFIG))
    else:
        data, notes = without_kernels(data)
        subject = _built(_plan(name, data, location, request, task_type), request, step)
        subject = replace(subject, folder=_processor_folder(location, file, request), notes=(*notes, *subject.notes))
    subject = replace(subject, notes=(*location.notes(), *subject.notes))
    return subject if file is None or isinstance(form, HubRepo) else replace(subject, source_file=str(file))


def _from_library(name: str, foreign: libraries.Foreign, request: Request, step: Step) -> Subject:
    if request.reduce:
        raise InspectionError(f"--reduce knows the configs of transformers, and {foreign.note}: make it smaller with --config-set")
    weights = request.weights or "none"
    step(f"building {foreign.class_name}")
    model = libraries.build(foreign, weights, name)
    return Subject(model, name, weights, foreign.batch(), notes=(foreign.note,), batch_by="signature and config")


def _plan(name: str, data: Mapping[str, Any], location: Location, request: Request, task_type: str | None) -> Blueprint:
    """What to build from the contents of a config.json."""
    if request.trust_remote_code and has_code(data):
        config, chosen = remote_classes(data, location, request.config_fields, task_type)
    else:
        config = config_from(data, request.config_fields, name)
        chosen = model_class(config, task_type, request.base_class)
    return Blueprint(name, config, chosen, location.checkpoint)


def _built(blueprint: Blueprint, request: Request, step: Step, others: Iterable[tuple[Blueprint, str]] = ()) -> Subject:
    """Build what is planned, or the first of `others` that builds, with the note on it."""
    weights: Weights = request.weights or "none"
    if request.reduce and weights == "pretrained":
        raise InspectionError("--reduce makes a smaller model, which no checkpoint fits: use --weights random")
    step(f"building {blueprint.model_class.__name__}")
    try:
        return _build(blueprint, request, weights)
    except InspectionError as error:
        if isinstance(error.__cause__, ImportError):
            raise
        for other, note in others:
            with contextlib.suppress(InspectionError):
                subject = _build(other, request, weights)
                return replace(subject, notes=(*subject.notes, note))
        raise


def _build(blueprint: Blueprint, request: Request, weights: Weights) -> Subject:
    """Build one blueprint, without LayerDrop and as small as was asked."""
    notes = (*_on_quantisation(blueprint.config), *without_layerdrop(blueprint.config, request.config_fields))
    if request.reduce:
        from peft_inspect.load.model.reduce import reduced

        config, note = reduced(blueprint.config)
        blueprint, notes = replace(blueprint, config=config), (*notes, note)
    return Subject(build(blueprint, weights), blueprint.name, weights, notes=notes)


def _processor_folder(location: Location, file: Path, request: Request) -> str:
    """The folder with tokenizer and processor files, which are fetched only where the user's own content needs them."""
    wanted = isinstance(location, Folder) or any((request.text, request.image, request.audio))
    return str(location.processor() if wanted else file.parent)


def _on_quantisation(config: PretrainedConfig) -> tuple[str, ...]:
    quantization = getattr(config, "quantization_config", None)
    if quantization is None:
        return ()
    method = quantization.get("quant_method") if isinstance(quantization, dict) else getattr(quantization, "quant_method", None)
    named = getattr(method, "value", method) or "unnamed method"
    return (f"the checkpoint is quantised ({named}); its layers are built as plain linear layers of the same shapes",)
