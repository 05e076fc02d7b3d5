"""Which tensors of a checkpoint a model's parameters are made of: under their own names, renamed, or fused out of several."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_inspect.internals import find

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peft_inspect.structure.merged.checkpoint import Stored


@dataclass(frozen=True)
class Source:
    """Where one parameter comes from: one stored tensor as it is, or several that transformers fuses."""

    stored: tuple[Stored, ...]
    names: tuple[str, ...]
    converter: Any = None
    patterns: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it can only be had as a whole."""
        return self.converter is not None

    def fused(self, name: str, model: nn.Module) -> Tensor:
        """The parameter made as transformers makes it when it loads the checkpoint."""
        converter = copy.deepcopy(self.converter)
        for source, stored, pattern in zip(self.names, self.stored, self.patterns, strict=True):
            converter.add_tensor(name, source, pattern, stored.read())
        made = converter.convert(name, model=model, config=model.config)
        value = made[name]
        tensor: Tensor = value[0] if isinstance(value, list) else value
        return tensor


class Sources:
    """The parameters of a base model by the tensors of a checkpoint.

    Args:
        checkpoint: by name, as stored.
        model: the base model, adapted or not.
        names: of its parameters, as they are without an adapter.
    """

    def __init__(self, checkpoint: Mapping[str, Stored], model: nn.Module, names: set[str]) -> None:
        self._found: dict[str, Source] = {name: Source((checkpoint[name],), (name,)) for name in names if name in checkpoint}
        self._tied = _tied(model, names)
        for name, group in _renamed(checkpoint, model, names).items():
            self._found.setdefault(name, group)

    def of(self, name: str) -> Source | None:
        """The source of a parameter; that of the tensor it is tied to where the checkpoint holds only this."""
        return self._found.get(name) or self._found.get(self._tied.get(name, ""))


def _renamed(checkpoint: Mapping[str, Stored], model: nn.Module, names: set[str]) -> dict[str, Source]:
    """As transformers loads them: with prefixes added or taken away, renamed, or fused."""
    mapping, rename = find("checkpoint_conversions"), find("rename_checkpoint_key")
    if mapping is None or rename is None or not hasattr(model, "config"):
        return {}
    transforms = mapping(model)
    converters = [transform for transform in transforms if hasattr(transform, "operations")]
    renamings = [transform for transform in transforms if not hasattr(transform, "operations")]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    groups: dict[str, list[tuple[str, str | None]]] = {}
    held = dict.fromkeys(names, True)
    for name in sorted(checkpoint, key=_natural):
        target, pattern = rename(name, renamings, converters, getattr(model, "base_model_prefix", None), held)
        if target in names:
            groups.setdefault(target, []).append((name, pattern))
    found = {}
    for target, group in groups.items():
        stored, sources = tuple(checkpoint[name] for name, _ in group), tuple(name for name, _ in group)
        patterns = tuple(pattern for _, pattern in group if pattern is not None)
        if patterns and len(patterns) == len(group):
            found[target] = Source(stored, sources, by_pattern[patterns[0]], patterns)
        elif len(group) == 1:
            found[target] = Source(stored, sources)
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Indices in the order of numbers, as the experts of a list are."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _tied(model: nn.Module, names: set[str]) -> dict[str, str]:
    """Parameters that share one tensor with another, by name."""
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        name = path.replace(".base_layer", "").replace(".original_module", "")
        if name not in names:
            continue
        other = first.setdefault(id(parameter), name)
        if other != name:
            tied |= {name: other, other: name}
    return tied
