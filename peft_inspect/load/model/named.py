"""What the MODEL argument names, told from its spelling and from what lies on the disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from peft_inspect.load.user_code import defined_names, is_reference, whole_program
from peft_inspect.load.words import listed
from peft_inspect.reading import user_path
from peft_inspect.records import InspectionError

_HUB_ID = re.compile(r"(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Architecture:
    """`arch:qwen2_audio`: the default configuration of a model type."""

    model_type: str


@dataclass(frozen=True)
class Code:
    """`train.py:build_model` or `package.module:build_model`."""

    reference: str


@dataclass(frozen=True)
class LocalFile:
    """`path/config.json`: a model's config file."""

    path: Path


@dataclass(frozen=True)
class LocalFolder:
    """`path/`: a folder with a model, an adapter or several."""

    path: Path


@dataclass(frozen=True)
class HubRepo:
    """`owner/name` or `owner/name@revision` on the hub."""

    repo: str
    revision: str | None = None


Named = Architecture | Code | LocalFile | LocalFolder | HubRepo


def named(text: str) -> Named:
    """The form of a MODEL.

    Raises:
        InspectionError: it has none of the forms, or is a path where nothing is.
    """
    if text.startswith("arch:"):
        return Architecture(text.removeprefix("arch:"))
    path = user_path(text)
    if path.is_dir():
        return LocalFolder(path)
    if path.is_file():
        return _file(path)
    if is_reference(text):
        return Code(text)
    if _looks_like_path(text):
        raise InspectionError(f"there is no file or folder {text}")
    if match := _HUB_ID.fullmatch(text):
        return HubRepo(match["id"], match["revision"])
    raise InspectionError(
        f"{text!r} is no model: give a hub id, a folder, a config.json, arch:TYPE, file.py:callable or package.module:callable"
    )


def _file(path: Path) -> Named:
    if path.name == "adapter_config.json":
        return LocalFolder(path.parent)
    if path.suffix == ".json":
        return LocalFile(path)
    if path.suffix == ".py":
        names = defined_names(path)
        found = f": it defines {listed(names)}" if names else ""
        likely = next((name for name in names if "model" in name.lower()), names[0] if names else "build_model")
        raise InspectionError(
            f"say which callable of {path} builds the model, as {path}:{likely}{found}; "
            f"or inspect the program as it runs: {whole_program(f'{path}:')}"
        )
    raise InspectionError(
        f"{path} is no model: give its folder, its config.json, or a Python file with a callable, as train.py:build_model"
    )


def _looks_like_path(text: str) -> bool:
    name = text.partition("@")[0]  # a revision may have slashes: refs/pr/1
    return (
        name.startswith((".", "/", "~"))
        or name.endswith(("/", ".py", ".json", ".safetensors", ".bin", ".pt"))
        or name.count("/") > 1
        or "\\" in name
    )
