"""The target table: for every entry of a PEFT config, what it reached. Matching is PEFT's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from peft_inspect.records import AdapterLayerInfo, ConfigEntry, Tower
from peft_inspect.structure.bare import BareModel, output_layer
from peft_inspect.structure.conversion import fused_names, is_rewritten_key, was_converted
from peft_inspect.structure.fields import Asked, Entries
from peft_inspect.structure.kinds import LINEARS
from peft_inspect.structure.names import similar_names
from peft_inspect.structure.places import Places

ALL_LINEAR = "all-linear"
Key = tuple[str, str | None]  # name of a module, and of its parameter where that is what is adapted


class TargetTable:
    """Builds the rows for one adapter.

    Args:
        bare: the base model under its names.
        rows: the adapter layers that were built for this adapter.
        towers: of the whole model.
        config: the adapter's config as it is now.
        requested: the fields that were asked for, where they are known; PEFT rewrites the config as it wraps.
    """

    def __init__(
        self,
        bare: BareModel,
        rows: Iterable[AdapterLayerInfo],
        towers: tuple[Tower, ...],
        config: Mapping[str, Any],
        requested: Mapping[str, Any] | None = None,
    ) -> None:
        self.bare = bare
        self.now = Asked.of(config)
        self.known = any((requested or {}).get(field) for field in ("target_modules", "target_parameters"))
        self.asked = Asked.of(requested or {}) if self.known else self.now
        self.fused = fused_names(getattr(bare.modules[""], "config", None))
        self.converted = was_converted(config, self.fused)
        self.built: dict[Key, str] = {(row.name, row.parameter_name): row.path for row in rows}
        self._paths = set(self.built.values())
        self._names = {name for name, _ in self.built}
        self.place = Places(bare, towers)

    def targets(self) -> tuple[ConfigEntry, ...]:
        """One row per entry of every field, in the order of the config."""
        return (
            *self._modules(),
            *self._parameters(),
            *self._excluded(),
            *self._saved(),
            *self._patterns("rank_pattern", self.asked.ranks),
            *self._patterns("alpha_pattern", self.asked.alphas),
            *self._indices(),
        )

    @property
    def all_linear(self) -> bool:
        """Whether the entries together name every linear layer, as PEFT's replacement of all-linear does."""
        every = set(self._linears())
        return bool(every) and (self.asked.modules == ALL_LINEAR or every.issubset(self._named(self.asked.modules)))

    def asks_for(self, row: AdapterLayerInfo) -> bool:
        """Whether the config as it is now reaches this layer."""
        if not self.now.modules and not self.now.parameters:
            return True
        if any(outer in self._paths for outer in _around(row.path)):
            return True  # built by the adapter layer around it, as in nn.MultiheadAttention
        if row.parameter_name is not None:
            return any(_names_parameter(entry, f"{row.name}.{row.parameter_name}") for entry in self.now.parameters)
        return any(self.now.keeps(name, self.now.modules) for name in (row.name, *_around(row.name)))

    def _modules(self) -> Iterator[ConfigEntry]:
        entries = self.asked.modules
        if isinstance(entries, str):
            every = entries.lower() == ALL_LINEAR
            yield self._module_target(entries, self._linears() if every else self._named(entries), converted=every or self.converted)
            return
        if self._lists_all_linears(entries):
            yield self._module_target(ALL_LINEAR, self._linears(), converted=True)
            return
        for entry in entries:
            yield self._module_target(entry, self._named((entry,)), converted=True)

    def _lists_all_linears(self, entries: tuple[str, ...]) -> bool:
        """PEFT replaces all-linear by the full paths of what it found."""
        return len(entries) > 1 and all("." in entry for entry in entries) and set(entries) == set(self._linears())

    def _module_target(self, entry: str, named: list[str], *, converted: bool) -> ConfigEntry:
        matched = [name for name in named if (name, None) in self.built] or self._moved(named)
        parameters = self._converted(entry) if converted else []
        left = [name for name in named if name not in self._names]
        dropped = [name for name in left if not self.asked.keeps(name, self._field(entry, named))]
        lost = [name for name in left if name not in dropped] if self.converted else []
        rewritten = [name for name in lost if self._is_fused(name) and self._is_unadapted_linear(name)]
        target = self._target("target_modules", entry, [(name, None) for name in matched] + parameters)
        return replace(
            target,
            dropped=self._live(dropped),
            rewritten=self._live(rewritten),
            missed=self.place.missed(matched, [*dropped, *rewritten]) if entry != ALL_LINEAR else (),
            closest=() if target.matched else similar_names(entry, self.bare),
            regex=isinstance(self.asked.modules, str) and entry.lower() != ALL_LINEAR,
        )

    def _moved(self, named: list[str]) -> list[str]:
        """Layers inside modules that have taken their place and name: PEFT refuses a name that is no layer's while it wraps."""
        return [name for name, parameter in self.built if parameter is None and any(outer in named for outer in _around(name))]

    def _converted(self, entry: str) -> list[Key]:
        """The expert parameters that PEFT turned this entry into."""
        if not self.converted:
            return []
        endings = {
            new for old, new in self.fused.items() if entry == ALL_LINEAR or _names_parameter(old, entry) or self._regex_names(entry, old)
        }
        return [key for key in self.built if key[1] is not None and any(_names_parameter(end, _full(key)) for end in endings)]

    def _regex_names(self, entry: str, old: str) -> bool:
        """Whether an entry that is a regular expression would have matched the experts under their old names."""
        if not isinstance(self.asked.modules, str):
            return False
        holders = {name for name, parameter in self.built if parameter is not None}
        return any(self.asked.names(f"{holder}.{old}", entry) for holder in holders)

    def _is_fused(self, name: str) -> bool:
        return name.rpartition(".")[2] in self.fused

    def _parameters(self) -> Iterator[ConfigEntry]:
        for entry in self.asked.parameters:
            reached = [key for key in self.built if key[1] is not None and _names_parameter(entry, f"{key[0]}.{key[1]}")]
            target = self._target("target_parameters", entry, reached)
            rewritten: list[str] = []
            if self.converted and entry in self.fused.values() and not self.known:
                old = {name for name, new in self.fused.items() if new == entry}
                rewritten = [name for ending in old for name in self.bare.ending_in(ending) if self._is_unadapted_linear(name)]
            yield replace(target, rewritten=self._live(rewritten), closest=() if reached else similar_names(entry, self.bare))

    def _is_unadapted_linear(self, name: str) -> bool:
        return isinstance(self.bare.modules[name], LINEARS) and not self.bare.adapters[name]

    def _excluded(self) -> Iterator[ConfigEntry]:
        fields = self.asked.exclude
        targeted = self._targeted() if fields else []
        for entry in (fields,) if isinstance(fields, str) else fields:
            field = entry if isinstance(fields, str) else (entry,)
            hit = [name for name in targeted if not self.asked.names(name, (name,), exclude=field)]
            inside = [name for name, parameter in self.built if parameter is None and _mentions(entry, name)]
            live = self._live(hit)
            regex = isinstance(fields, str)
            target = ConfigEntry("exclude_modules", entry, live, by_tower=self._by_tower(live), regex=regex, names=tuple(hit))
            yield replace(
                target, missed=self._live(inside), closest=() if hit or inside else similar_names(entry, self.bare, containers=True)
            )

    def _targeted(self) -> list[str]:
        """Names that the entries reach before anything is excluded."""
        return self._linears() if self.asked.modules == ALL_LINEAR else self._named(self.asked.modules)

    def _saved(self) -> Iterator[ConfigEntry]:
        saved = {name: live for live, name in self.bare.name_of.items() if live == self.bare.live[name] and not self.bare.adapters[name]}
        for entry in self.asked.save:
            hit = [name for name in saved if name.endswith(entry)]
            live = self._live(hit)
            target = ConfigEntry("modules_to_save", entry, live, by_tower=self._by_tower(live), names=tuple(hit))
            yield replace(target, closest=() if hit else similar_names(entry, self.bare, containers=True))

    def _patterns(self, field: str, keys: tuple[str, ...]) -> Iterator[ConfigEntry]:
        keys = tuple(key for key in keys if not (self.converted and is_rewritten_key(key, self.fused)))
        decided = {built: next((key for key in keys if _applies(key, _full(built))), None) for built in self.built}
        for key in keys:
            hit = [built for built, winner in decided.items() if winner == key]
            target = self._target(field, key, hit)
            shadowed = [built[0] for built in self.built if not hit and _applies(key, _full(built))]
            near = () if hit or key.rpartition(".")[2] in self.bare.endings else self._adapted(similar_names(key, self.bare))
            yield replace(target, dropped=self._live(shadowed), closest=near)

    def _adapted(self, names: Iterable[str]) -> tuple[str, ...]:
        """Of these endings of layer names, the ones that adapter layers have."""
        return tuple(near for near in names if any(_names_parameter(near, name) for name in self._names))

    def _indices(self) -> Iterator[ConfigEntry]:
        blocks = self.place.blocks(self.asked.pattern) if self.asked.indices else {}
        for index in self.asked.indices:
            hit = [key for key in self.built if self.place.index(key[0], self.asked.pattern) == index]
            target = self._target("layers_to_transform", str(index), hit)
            yield replace(target, missed=() if hit else blocks.get(index, ()), closest=tuple(map(str, sorted(blocks))))

    def _named(self, entries: Entries) -> list[str]:
        """Names that entries reach by name alone. A suffix can only match names with its own last part."""
        names: Iterable[str] = self.bare.modules
        if not isinstance(entries, str):
            names = dict.fromkeys(name for entry in entries for name in self.bare.ending_in(entry))
        return [name for name in names if name and self.asked.names(name, entries)]

    def _field(self, entry: str, named: list[str]) -> Entries:
        """One entry as the value of `target_modules`."""
        if entry.lower() == ALL_LINEAR:
            return tuple(named)
        return entry if isinstance(self.asked.modules, str) else (entry,)

    def _linears(self) -> list[str]:
        """What all-linear stands for: every linear layer but the output embedding."""
        head = output_layer(self.bare)
        return [name for name, module in self.bare.modules.items() if isinstance(module, LINEARS) and module is not head]

    def _target(self, field: str, entry: str, keys: list[Key]) -> ConfigEntry:
        live = tuple(dict.fromkeys(self.built[key] for key in keys))
        return ConfigEntry(field, entry, live, by_tower=self._by_tower(live), names=tuple(map(_full, keys)))

    def _by_tower(self, paths: Iterable[str]) -> dict[str, int]:
        return dict(Counter(self.place.tower(path) for path in paths))

    def _live(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.bare.live[name] for name in names)


def _full(key: Key) -> str:
    return key[0] if key[1] is None else f"{key[0]}.{key[1]}"


def _around(path: str) -> Iterator[str]:
    """The modules around a layer, from the outside in; levels of one nested wrapper count as the layer itself."""
    parts = path.removesuffix(".base_layer").split(".")
    while parts and parts[-1] == "base_layer":
        parts.pop()
    return (".".join(parts[:end]) for end in range(1, len(parts)))


def _names_parameter(entry: str, parameter: str) -> bool:
    """As PEFT matches target_parameters: exactly, or as a suffix."""
    return parameter == entry or parameter.endswith(f".{entry}")


def _applies(key: str, name: str) -> bool:
    """As PEFT matches the keys of rank_pattern and alpha_pattern."""
    try:
        return re.match(rf"(.*\.)?({key})$", name) is not None
    except re.error:
        return False


def _mentions(entry: str, name: str) -> bool:
    """Whether a module lies where an entry of exclude_modules points to, by eye: in a module of that name or whose path it matches."""
    if f".{entry}." in f".{name}.":
        return True
    try:
        return re.search(entry, name) is not None
    except re.error:
        return False
