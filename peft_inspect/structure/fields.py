"""The target fields of a PEFT config, and PEFT's own answer to what they match."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from peft.tuners.tuners_utils import check_target_module_exists

Names = tuple[str, ...]
Entries = str | Names  # a string is a regular expression, or all-linear


@dataclass(frozen=True)
class Asked:
    """The target fields of one adapter's config, as plain values: what the user wrote where that is known."""

    modules: Entries
    parameters: tuple[str, ...]
    exclude: Entries
    save: tuple[str, ...]
    ranks: tuple[str, ...]
    alphas: tuple[str, ...]
    indices: tuple[int, ...]
    pattern: Entries

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Asked:
        """From a config's fields."""
        indices = config.get("layers_to_transform")
        return cls(
            modules=_entries(config.get("target_modules")),
            parameters=tuple(config.get("target_parameters") or ()),
            exclude=_entries(config.get("exclude_modules")),
            save=tuple(config.get("modules_to_save") or ()),
            ranks=tuple(config.get("rank_pattern") or ()),
            alphas=tuple(config.get("alpha_pattern") or ()),
            indices=(indices,) if isinstance(indices, int) else tuple(indices or ()),
            pattern=_entries(config.get("layers_pattern")),
        )

    def names(self, name: str, modules: Entries, *, exclude: Entries = (), save: Names = (), indices: tuple[int, ...] = ()) -> bool:
        """PEFT's answer to whether entries of `target_modules` reach a module, under the limits given."""
        config = SimpleNamespace(
            target_modules=modules if isinstance(modules, str) else list(modules),
            target_parameters=None,
            exclude_modules=exclude if isinstance(exclude, str) else list(exclude),
            modules_to_save=list(save),
            layers_to_transform=list(indices) or None,
            layers_pattern=self.pattern,
        )
        try:
            return bool(check_target_module_exists(config, name))
        except re.error:  # no regular expression: PEFT would have refused it, so nothing was built from it
            return False

    def keeps(self, name: str, modules: Entries) -> bool:
        """Whether entries reach a module under all limits of this config."""
        return self.names(name, modules, exclude=self.exclude, save=self.save, indices=self.indices)


def _entries(value: Any) -> Entries:
    return value if isinstance(value, str) else tuple(value or ())
