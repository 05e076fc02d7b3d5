"""What is run with the model: the batch, the loss and the optimizer that the user named."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from peft_inspect.load.user_code import UserCode, call, guarded, is_reference, whole_program
from peft_inspect.reading import read_text, regular, user_path
from peft_inspect.records import InspectionError, text_of


def read_batch(name: str, code: UserCode) -> Mapping[str, Any]:
    """The keyword inputs in a .safetensors or .json file, or those that a callable returns.

    Raises:
        InspectionError: there is no such file or callable, or it does not hold keyword inputs.
    """
    if is_reference(name):
        found = code.object(name)
        how = f"write one that needs none and returns a batch, or {whole_program(name)}"
        batch = call(name, found, otherwise=how) if callable(found) else found
        if isinstance(batch, torch.utils.data.DataLoader):
            batch = guarded(f"{name} raised", lambda: next(iter(batch)))
        if not isinstance(batch, Mapping) or not all(isinstance(key, str) for key in batch):
            raise InspectionError(
                f"{name} gave a {type(batch).__name__}: a batch is a dict of keyword inputs, such as input_ids and labels"
            )
        return dict(batch)
    path = user_path(name)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.suffix == ".json":
        return _json(path)
    raise InspectionError(
        f"{name!r} is no batch: give a .safetensors or .json file, or a callable that returns a dict, as train.py:make_batch"
    )


def read_loss(name: str, code: UserCode) -> Callable[[Any, Any], torch.Tensor]:
    """The loss callable that was named.

    Raises:
        InspectionError: it is missing, or cannot be called.
    """
    loss = code.object(name)
    if not callable(loss):
        raise InspectionError(
            f"{name} is a {type(loss).__name__}: a loss is a callable loss(model, batch) that returns the tensor that is trained"
        )
    return loss  # type: ignore[no-any-return]


def read_optimizer(name: str, code: UserCode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer that was named, or that the named callable makes for `model`, with or without being given it.

    Raises:
        InspectionError: it is missing, raises, makes something else, or was made for another model.
    """
    made = code.object(name)
    if not isinstance(made, torch.optim.Optimizer):
        if not callable(made):
            raise InspectionError(f"{name} is a {type(made).__name__}: name an optimizer, or a callable optimizer(model) that returns one")
        return _made_optimizer(name, made, model)
    own = set(map(id, model.parameters()))
    if not any(id(parameter) in own for group in made.param_groups for parameter in group["params"]):
        raise InspectionError(
            f"{name} holds no parameter of this model, so it was made for another one: name a callable optimizer(model) that returns "
            f"the optimizer, or {whole_program(name)}"
        )
    return made


def _made_optimizer(name: str, make: Callable[..., Any], model: torch.nn.Module) -> torch.optim.Optimizer:
    wanted = _parameters_of(make)
    if wanted and wanted[0] in ("params", "parameters"):
        raise InspectionError(
            f"{name} is given its parameters by whoever calls it, and which those are is what is checked: name a callable "
            "optimizer(model) that returns the optimizer as you make it"
        )
    how = f"write a callable optimizer(model), or {whole_program(name)}"
    made: Any = call(name, make, *((model,) if wanted or wanted is None else ()), otherwise=how)
    if not hasattr(made, "param_groups"):
        raise InspectionError(f"{name} returned a {type(made).__name__}: it must return a torch.optim.Optimizer")
    return made  # type: ignore[no-any-return]


def _parameters_of(function: Callable[..., Any]) -> list[str] | None:
    """The names of what a callable takes; None where it does not tell."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(regular(path)))
    except (SafetensorError, OSError) as error:
        raise InspectionError(f"{path} is no valid safetensors file: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InspectionError(f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise InspectionError(f"{path} is JSON that cannot be read: {text_of(error)}") from error
    if not isinstance(data, dict):
        raise InspectionError(f"{path} holds a {type(data).__name__}: a batch is an object of keyword inputs, such as input_ids and labels")
    return {key: _tensor(value, f"{path}: {key}") for key, value in data.items()}


def _tensor(value: Any, where: str) -> Any:
    """Lists of numbers as a tensor; everything else as it is."""
    if not isinstance(value, list) or _holds(value, str | dict):
        return value
    try:
        return torch.tensor(value)
    except (ValueError, TypeError, RuntimeError, OverflowError, RecursionError) as error:  # uneven rows, null, an integer of 100 bits
        raise InspectionError(f"{where} is no tensor: {error}") from error


def _holds(value: Any, kind: Any) -> bool:
    return any(_holds(entry, kind) for entry in value) if isinstance(value, list) else isinstance(value, kind)
