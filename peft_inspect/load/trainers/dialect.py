"""What a trainer's dialect declares: how it is recognised, what its fields decide, and what cannot be followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peft_inspect.load.trainers.reader import Reader, has_value, value_at
from peft_inspect.load.trainers.recognised import Recognised


@dataclass(frozen=True, eq=False)
class Dialect:
    """One trainer's way to write LoRA settings.

    Names of fields are dotted where they lie in a section: `peft.dim`.
    """

    trainer: str
    version: str  # the one whose source was read
    follows: str  # the functions of the trainer that are followed
    own: frozenset[str]  # fields, or sections, that only this trainer has
    decides: Mapping[str, str]  # a field that is followed → what it decides
    warned: Mapping[str, str]  # a field that matters and is not followed → what the trainer would do
    read: Callable[[Reader], Recognised]  # raises InspectionError where the file trains no adapter
    indifferent: frozenset[str] = frozenset()  # fields that decide nothing here, though they are called as if
    flat: tuple[str, ...] = ()  # sections whose fields may as well stand at the top
    together: tuple[str, ...] = ()  # plain fields that are all there in this trainer's files alone
    told: Callable[[Mapping[str, Any]], bool] = field(default=lambda _: True)  # whether the own fields are enough

    def evidence(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        """The fields of a file that only this trainer has."""
        data = self._flattened(data)
        found = tuple(sorted(name for name in self.own if has_value(data, name)))
        if self.together and all(isinstance(value_at(data, name), str) for name in self.together):
            found = (*self.together, *found)
        return found if found and self.told(data) else ()

    def recognised(self, data: Mapping[str, Any], where: str) -> Recognised:
        """Read a file of this trainer.

        Args:
            data: the contents of the file.
            where: the file as the user knows it, for messages.

        Raises:
            InspectionError: the file trains no adapter, or a value is of another kind than its field holds.
        """
        reader = Reader(self._flattened(data), where, self)
        found = self.read(reader)
        return Recognised(**{**vars(found), "notes": (*found.notes, *reader.notes())})

    def _flattened(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        sections = {name: data[name] for name in self.flat if isinstance(data.get(name), Mapping)}
        inside = {key: value for section in sections.values() for key, value in section.items()}
        return {**{name: value for name, value in data.items() if name not in sections}, **inside}
