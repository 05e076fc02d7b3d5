"""What of a base model an adapter can go on, read without changing it."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Hashable, Iterable
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from peft_inspect.internals import find

_LINEAR = (torch.nn.Linear, Conv1D)
_CONVOLUTION = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
_ADAPTABLE = (*_LINEAR, *_CONVOLUTION, torch.nn.Embedding, torch.nn.MultiheadAttention)
_ROUTER = re.compile(r"(^|_)(router|gate)$")  # training it unsettles which expert gets which token: not to be suggested

_INDEXED = re.compile(r"(?:.*?\.)?(?P<list>[^.]+)\.(?P<index>\d+)\.")  # by the first number in a path, as for layers_to_transform


class Adaptable:
    """The modules of a base model by path, as they were before any wrapping: an adapter layer counts as its base layer."""

    def __init__(self, model: torch.nn.Module, config: Any) -> None:
        self.model, self.config = model, config
        self.modules = _base_modules(model)

    @property
    def name(self) -> str:
        """The model's class."""
        return type(self.model).__name__

    def takes_adapter(self, path: str) -> bool:
        """Whether PEFT has an adapter layer for the module."""
        return self.unsupported(path) is None

    def unsupported(self, path: str) -> str | None:
        """What keeps PEFT from adapting the module; None for nothing."""
        module, rank = self.modules[path], getattr(self.config, "r", None)
        if isinstance(module, _CONVOLUTION) and isinstance(rank, int) and rank % module.groups:
            return f"has {module.groups} groups, and takes only ranks that are multiples of that, not {rank}"
        if isinstance(module, _ADAPTABLE):
            return None
        return "is neither a linear layer nor an embedding, a convolution or nn.MultiheadAttention"

    def linear_names(self) -> list[str]:
        """Last path parts of the linear layers on which an adapter runs, most frequent first, without the output head and routers."""
        head, dead = _output_head(self.model), self.dead
        counts: dict[str, int] = {}
        for path, module in self.modules.items():
            name = last(path)
            routes = any(map(_ROUTER.search, path.split(".")[-2:]))
            if isinstance(module, _LINEAR) and module is not head and not routes and not name.isdecimal() and name not in dead:
                counts[name] = counts.get(name, 0) + 1
        return sorted(counts, key=lambda name: -counts[name])

    @functools.cached_property
    def dead(self) -> frozenset[str]:
        """Names of the layers whose weights a fused kernel takes, where PEFT knows the architecture for having such kernels."""
        refused = {name for name in distinct(map(last, self.modules)) if _is_refused(self.config, self.model, name)}
        return frozenset(refused | self.read_directly()) if refused else frozenset()

    def linear_names_below(self, path: str) -> list[str]:
        """Entries of target_modules for the linear layers inside a module."""
        below = (child for child, module in self.modules.items() if child.startswith(f"{path}.") and isinstance(module, _LINEAR))
        return distinct(f"{last(path)}{child.removeprefix(path)}" for child in below)

    def convolution_names(self) -> list[str]:
        """Last path parts of the convolutions that take an adapter, and of nothing that takes none."""
        names = (last(path) for path, module in self.modules.items() if isinstance(module, _CONVOLUTION) and module.groups == 1)
        others = {last(path) for path in self.modules if not self.takes_adapter(path)}
        return [name for name in distinct(names) if not name.isdecimal() and name not in others]

    def expert_parameters(self, path: str) -> list[str]:
        """Fused expert weights that a module holds itself, as entries of target_parameters."""
        module = self.modules[path]
        if "expert" not in f"{path}.{type(module).__name__}".lower():
            return []
        parent = ".".join(path.split(".")[-2:])
        return [f"{parent}.{name}" for name, parameter in module.named_parameters(recurse=False) if parameter.ndim == 3]

    def matched(self, **changed: Any) -> list[str]:
        """Paths that the target_modules of the config reach, with other values for some of its fields."""
        from peft.tuners.tuners_utils import check_target_module_exists

        if getattr(self.config, "target_modules", None) in (None, "all-linear"):
            return []
        config = copy.copy(self.config)
        vars(config).update(changed)
        try:
            return [path for path in self.modules if check_target_module_exists(config, path)]
        except Exception:  # a value that the check itself cannot use, in a field that decides what is reached
            return []

    def refused(self) -> list[str]:
        """Names among the targets that PEFT refuses on this architecture, since its kernels take the raw weights."""
        return [name for name in distinct(last(path) for path in self.matched()) if _is_refused(self.config, self.model, name)]

    def language_model(self) -> str | None:
        """Where the decoder of a model is, if that is only a part of it and the model says so."""
        try:
            decoder: Any = self.model.get_decoder()  # type: ignore[operator]
        except (AttributeError, NotImplementedError):  # no model of transformers, or one that has none
            return None
        return next((path for path, module in self.modules.items() if module is decoder), None)

    @staticmethod
    def layers_of(paths: Iterable[str]) -> list[int]:
        """The layer indices of modules."""
        return [int(found["index"]) for found in map(_INDEXED.match, paths) if found]

    @staticmethod
    def lists_of(paths: Iterable[str]) -> list[str]:
        """The names of the lists that modules are in, as layers_pattern takes them."""
        return distinct(found["list"] for found in map(_INDEXED.match, paths) if found)

    def read_directly(self) -> set[str]:
        """Names of modules whose weight the code of the parent reads, instead of calling the module, on one of its paths at least."""
        return {last(path) for path in self.modules if self.takes_adapter(path) and self._parent_reads_weight(path)}

    def _parent_reads_weight(self, path: str) -> bool:
        parent, _, name = path.rpartition(".")
        return parent in self.modules and f"self.{name}.weight" in _source(type(self.modules[parent]))  # type: ignore[arg-type]


def last(path: str) -> str:
    """The last part of a dotted path."""
    return path.rpartition(".")[2]


def distinct(names: Iterable[str]) -> list[str]:
    """Each name once, in order."""
    return list(dict.fromkeys(names))


def _base_modules(model: torch.nn.Module) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules: dict[str, Any] = {}
    inside: str | None = None
    for path, module in model.named_modules():
        if not path or (inside is not None and path.startswith(inside)):
            continue
        adapted = isinstance(module, BaseTunerLayer)
        modules[path] = module.get_base_layer() if adapted else module
        inside = f"{path}." if adapted else None
    return modules


def _output_head(model: Any) -> torch.nn.Module | None:
    try:
        head: torch.nn.Module | None = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):  # no model of transformers, or one that does not say
        return None
    return head


def _is_refused(config: Any, model: torch.nn.Module, name: str) -> bool:
    check = find("check_mamba")
    if check is None:  # this PEFT keeps no such list
        return False
    try:
        check(config, model, name)
    except ValueError:
        return True
    return False


@functools.cache
def _source(kind: Hashable) -> str:
    try:
        return inspect.getsource(kind)  # type: ignore[arg-type]
    except (OSError, TypeError):  # a class without source
        return ""
