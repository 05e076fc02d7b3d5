"""What the user named → the live subject of the inspection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from peft_inspect.load.adapter import attach
from peft_inspect.load.adapter.trained_on import as_trained, task_type
from peft_inspect.load.inputs import read_batch, read_loss, read_optimizer
from peft_inspect.load.lora import settings
from peft_inspect.load.lora.lora import Asked, asked
from peft_inspect.load.lora.wrap import is_weightless, is_wrapped, wrap
from peft_inspect.load.model.base import base_model, location_of
from peft_inspect.load.model.named import Code, LocalFile, Named, named
from peft_inspect.load.model.whole import require_tree
from peft_inspect.load.repeatable import repeatable
from peft_inspect.load.user_code import UserCode
from peft_inspect.records import AdapterFile, InspectionError, Request, Subject, Weights

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
    name = request.model or _model_of(lora)
    if request.adapter is not None and request.reduce:
        raise _no_smaller_model(request.adapter)
    with repeatable():
        code = UserCode()
        resumes = lora is not None and lora.recognised.resumed is not None
        files = (
            _resumed_files(lora, step)
            if lora is not None and resumes and request.adapter is None
            else _adapter_files(request.adapter, step)
        )
        subject = _model(name, request, lora, files, code, step)
        if lora is not None and resumes and not is_wrapped(subject.model):
            return _with_inputs(_resumed(subject, lora, files, step), request, code)
        if lora is not None:
            subject = _wrapped(subject, lora, step)
        return _with_inputs(_with_adapter(subject, files), request, code)


def live(
    model: torch.nn.Module,
    *,
    batch: Mapping[str, Any] | None,
    loss: Callable[[Any, Any], torch.Tensor] | None,
    optimizer: torch.optim.Optimizer | None,
    adapter: str | None,
) -> Subject:
    """The subject for a model that the caller holds already. Nothing is loaded onto it; an adapter file is only read.

    Raises:
        InspectionError: what was passed is not a module or not a batch, or the adapter file cannot be read.
    """
    if not issubclass(type(model), torch.nn.Module):
        raise InspectionError(f"a {type(model).__name__} cannot be inspected: pass the torch.nn.Module that is trained")
    require_tree(model, f"this is a {type(model).__name__}")
    if batch is not None and not isinstance(batch, Mapping):
        raise InspectionError(f"a batch is a dict of keyword inputs, such as input_ids and labels, and not a {type(batch).__name__}")
    files = () if adapter is None else attach.read_files(adapter)
    weights: Weights = "none" if is_weightless(model) else "user"
    return Subject(model, type(model).__name__, weights, batch, loss, optimizer, adapter_files=files)


def _model_of(lora: Asked | None) -> str:
    """The model that a LoRA file names. What a file names is read, never run."""
    if lora is None or lora.recognised.model is None:
        raise InspectionError("no MODEL: name one, or a --lora file that names its base model")
    name = lora.recognised.model
    if isinstance(named(name), Code):
        raise InspectionError(
            f"{lora.file} names the model {name!r}, which is code and not run because a file says so: "
            "where you trust it, name it yourself as MODEL"
        )
    return name


def _adapter_files(name: str | None, step: Step) -> tuple[AdapterFile, ...]:
    if name is None:
        return ()
    step(f"reading the adapter {name}")
    return attach.read_files(name)


def _resumed_files(lora: Asked, step: Step) -> tuple[AdapterFile, ...]:
    """The adapter that a trainer's file resumes."""
    try:
        return _adapter_files(lora.recognised.resumed, step)[:1]
    except InspectionError as error:
        raise InspectionError(
            f"{lora.file} resumes the adapter {lora.recognised.resumed}, whose own config decides what is trained, and it cannot be read: "
            f"{error}. Give its folder with --adapter DIR"
        ) from error


def _model(name: str, request: Request, lora: Asked | None, onto: tuple[AdapterFile, ...], code: UserCode, step: Step) -> Subject:
    """The base model, built as the adapters that are loaded onto it want it; or the adapter that MODEL names, with its base."""
    form = named(name)
    if not _is_adapter(form):
        if request.base is not None and request.adapter is not None:
            return _merged(name, form, request, onto, code, step)
        if request.base is not None:
            raise InspectionError(
                f"--base goes with an adapter, and {name} is none: leave it out, name the adapter as MODEL, or, where {name} is "
                "a merged model, the adapter in it with --adapter"
            )
        if onto and lora is None and not isinstance(form, Code):
            return base_model(name, form, as_trained(request, onto), task_type(onto), code, step)
        return base_model(name, form, _as_the_trainer_sets(request, form, lora), lora.task_type if lora else None, code, step)
    if request.reduce:
        raise _no_smaller_model(name)
    files = _adapter_files(name, step)
    base, base_form = attach.base_of(files, request.base)
    if _is_adapter(base_form):
        raise InspectionError(f"the base model of {name} is {base}, an adapter itself: name the model below it with --base MODEL")
    wanted = request if isinstance(base_form, Code) else as_trained(request, files)
    try:
        subject = base_model(base, base_form, wanted, task_type(files), code, step)
    except InspectionError as error:
        if request.base is not None or request.base_class is not None:
            raise
        raise InspectionError(f"{error} (this is the base model that {name} names: --base MODEL names another)") from error
    step("attaching the adapter")
    attached = subject if is_wrapped(subject.model) else attach.attach(subject, files)
    return replace(
        attached, source=name, base_name=base, adapter_files=attached.adapter_files or files, notes=(f"base model: {base}", *attached.notes)
    )


def _merged(name: str, form: Named, request: Request, files: tuple[AdapterFile, ...], code: UserCode, step: Step) -> Subject:
    """A merged checkpoint, built without its weights, to be held against its base and the adapter."""
    base = named(str(request.base))
    places = [location_of(form), location_of(base)]
    if None in places:
        raise InspectionError(f"to compare the merged model {name} with its base {request.base}, both have to be folders or hub ids")
    if request.weights not in (None, "none"):
        raise InspectionError(
            f"--weights {request.weights} loads a model to run it, and a merged model is compared file by file: leave it out"
        )
    folders = tuple(str(place.checkpoint()) for place in places if place is not None)
    step("attaching the adapter")
    built = base_model(name, form, as_trained(replace(request, base=None), files[:1]), task_type(files), code, step)
    subject = attach.attach(built, files[:1])
    return replace(
        subject, base_name=request.base, merged_onto=(folders[0], folders[1]), notes=(f"merged from: {request.base}", *subject.notes)
    )


def _no_smaller_model(adapter: str) -> InspectionError:
    return InspectionError(
        f"--reduce makes a smaller model, which the file of the adapter {adapter} does not fit: leave it out, "
        f"or take its config alone, as MODEL --lora {adapter} --set inference_mode=false --reduce"
    )


def _as_the_trainer_sets(request: Request, form: Named, lora: Asked | None) -> Request:
    """The request with the config fields of a trainer's file, which reach no model that the user's code builds; flags win."""
    if lora is None or isinstance(form, Code):
        return request
    return replace(request, config_fields={**lora.recognised.config_fields, **request.config_fields})


def _is_adapter(form: Named) -> bool:
    """Whether a MODEL form is an adapter; a config.json named as such is a model's, whatever lies beside it."""
    location = None if isinstance(form, LocalFile) else location_of(form)
    return location is not None and attach.holds_adapter(location)


def _wrapped(subject: Subject, lora: Asked, step: Step) -> Subject:
    if is_wrapped(subject.model):
        raise InspectionError(
            f"{subject.source} carries an adapter already: leave out --lora and the LoRA flags, "
            "or name the model as it is before the wrapping"
        )
    step("wrapping")
    fields, found = settings.as_the_trainer_builds(subject.model, lora)
    model = wrap(subject.model, fields)
    notes = (*subject.notes, *lora.notes, *found, *settings.apply(model, lora))
    # an optimizer that came with the model was made before there was anything to train
    return replace(subject, model=model, optimizer=None, requested=fields, source_file=lora.file or subject.source_file, notes=notes)


def _resumed(subject: Subject, lora: Asked, files: tuple[AdapterFile, ...], step: Step) -> Subject:
    """The trained adapter that a trainer's file goes on with, in the trainer's settings; its own config decides the rest."""
    step("attaching the adapter")
    attached = attach.attach(subject, files)
    said = f"the adapter {lora.recognised.resumed} is resumed, and its own config decides ranks and targets, not the fields of {lora.file}"
    return replace(attached, notes=(*attached.notes, *lora.notes, said, *settings.apply(attached.model, lora)))


def _with_adapter(subject: Subject, files: tuple[AdapterFile, ...]) -> Subject:
    """Loaded where the model has no adapter yet; where it has one, the file is only checked against it."""
    if subject.merged_onto is not None:
        return subject
    if not files or is_wrapped(subject.model):
        return replace(subject, adapter_files=(*subject.adapter_files, *files))
    return attach.attach(subject, files)


def _with_inputs(subject: Subject, request: Request, code: UserCode) -> Subject:
    content = {kind: value for kind in ("text", "image", "audio") if (value := getattr(request, kind)) is not None}
    for kind in ("image", "audio"):
        if kind in content and not Path(content[kind]).is_file():
            raise InspectionError(f"there is no {kind} file {content[kind]}")
    own: dict[str, Any] = {} if request.batch is None else {"batch": read_batch(request.batch, code), "batch_by": "user"}
    return replace(
        subject,
        **own,
        loss=None if request.loss is None else read_loss(request.loss, code),
        optimizer=subject.optimizer if request.optimizer is None else read_optimizer(request.optimizer, code, subject.model),
        content=content,
    )
