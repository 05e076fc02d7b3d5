"""What several trainers look for in the base model before they write their PEFT config."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from peft_inspect.path_patterns import as_pattern

if TYPE_CHECKING:
    import torch


def last(path: str) -> str:
    """The last part of a dotted path."""
    return path.rpartition(".")[2]


def distinct(names: Iterable[str]) -> list[str]:
    """Each name once, in order."""
    return list(dict.fromkeys(names))


def linear_paths(model: torch.nn.Module, *, without: Collection[str] = ()) -> list[str]:
    """Paths of the modules whose class is called as a linear layer is, none of them with one of the texts in it.

    Quantised linear layers are called so, too; fused experts and routers that hold raw parameters are not.
    """
    return [
        path
        for path, module in model.named_modules()
        if "Linear" in type(module).__name__ and not any(text in path for text in without) and path
    ]


def linear_names(model: torch.nn.Module, *, without: Collection[str] = ()) -> list[str]:
    """Last path parts of `linear_paths`, each once."""
    return distinct(map(last, linear_paths(model, without=without)))


def language_model(model: Any) -> str | None:
    """The path of the decoder in a model of several parts; None where there is none, as in one that is the decoder itself."""
    if getattr(model.config, "is_encoder_decoder", False):
        return None
    try:
        decoder = model.get_decoder()
    except (AttributeError, NotImplementedError):
        return None
    return next((path for path, module in model.named_modules() if module is decoder and path), None)


def blocks(model: torch.nn.Module) -> str | None:
    """The path of the longest list of repeated blocks of the decoder, or of a model as a whole; not of lists inside a block."""
    from torch.nn import ModuleList

    inside = language_model(model) or ""
    outer = [(path, module) for path, module in model.named_modules() if isinstance(module, ModuleList) and path.startswith(inside)]
    lists = [(len(module), path) for path, module in outer if not re.search(r"\.\d+\.", path)]
    return max(lists, key=lambda found: (found[0], -found[1].count(".")))[1] if lists else None


def expert_parameters(model: torch.nn.Module) -> list[str]:
    """Paths of the raw parameters in which fused experts hold their weights, one matrix an expert."""
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if "expert" in f"{last(path)}{type(module).__name__}".lower()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3
    ]


def as_targets(paths: Collection[str], model: torch.nn.Module) -> str | list[str]:
    """`target_modules` that reach these modules: one regular expression, unless PEFT would take that apart.

    Of models with fused experts PEFT resolves a regular expression to bare names, which reach the same names in all layers and towers;
    a list of whole paths it leaves as it is.
    """
    if not paths:
        return []
    return sorted(paths) if expert_parameters(model) else as_pattern(paths, [path for path, _ in model.named_modules()])
