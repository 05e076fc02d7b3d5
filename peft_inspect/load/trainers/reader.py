"""Taking fields out of a trainer's file, and telling of those that nobody took."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from peft_inspect.load.lora.lora_values import another_kind
from peft_inspect.load.words import listed
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from peft_inspect.load.trainers.dialect import Dialect

_ABSENT: Final = object()

# Words in the name of a field that may decide targets, ranks, scaling, initialisation, freezing, precision or checkpointing.
_DECIDING = re.compile(
    r"(^|[_.])(lora\w*|peft|adapters?|targets?|rank|alpha|dropout|dora|rslora|pissa|loftq|init|reinit|initiali[sz]ation|freez\w*|frozen"
    r"|unfr\w*|trainable|train_(from_scratch|on_embeddings)|qat|checkpointing|recompute\w*|embed\w*|vocab|add_(special_)?tokens"
    r"|new_special_tokens\w*|modules?|relora|lisa|galore|badam|apollo|reft|llama_pro|unsloth)([_.]|$)"
)
# Fields with such words, and whole sections, that decide how it is trained and not what.
_ASIDE = re.compile(
    r"(^|\.)(_target_|_component_|init_args|\w*sync_module_states|lora(plus|p)_\w+|low_cpu_mem_usage|\w+_checkpointing_steps)(\.|$)"
    r"|^(data|datasets?|\w+_dataset|\w*dataloader|optim(izer)?|lr_scheduler|rng|loss_fn|loss|tokenizer|processor|logg(er|ing)|wandb|metric_logger"
    r"|checkpoint|checkpointer|compile|profiler|generation|inference|eval|packed_sequence|parallelizer|step_scheduler|dist_env|ci)(\.|$)"
)
_PRECISION = re.compile(r"(^|[_.])(b?f(loat)?16|fp(16|32|8)|tf32|float32|dtype|precision|pure_bf16)([_.]|$)")
_QUANTISED = re.compile(
    r"(^|[_.])(load_in_[48]bit|quantization_bit|quant_bits|use_bnb_nested_quant|quantize_base|quantize|quantization(_\w+)?|quant_config"
    r"|quant_method|quantize_moe_experts|bnb_config_kwargs|bnb_4bit\w*|double_quantization|gptq|model_quantization_config\w*)([_.]|$)"
)


def value_at(data: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name; a marker of its own where there is none. A dotted name may be written out as the key, too."""
    if name in data:
        return data[name]
    value: Any = data
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def has_value(data: Mapping[str, Any], name: str) -> bool:
    """Whether there is a value at a dotted name."""
    return value_at(data, name) not in (_ABSENT, None)


class Reader:
    """Takes fields out of a trainer's file and keeps track of those that nobody asked for.

    All but `take` raise InspectionError where a value is of another kind than they give. Names are dotted inside sections.
    """

    def __init__(self, data: Mapping[str, Any], where: str, dialect: Dialect) -> None:
        self._data, self.where, self._dialect = data, where, dialect

    def has(self, name: str) -> bool:
        """Whether the field is there and has a value."""
        return has_value(self._data, name)

    def take(self, name: str, default: Any = None) -> Any:
        """The field's value; `default` where it is absent or empty."""
        value = value_at(self._data, name)
        return default if value is _ABSENT or value is None else value

    def text(self, name: str) -> str | None:
        """The field's value, which is a name."""
        value = self.take(name)
        if not isinstance(value, str | None):
            raise another_kind(self.where, name, value, "a name")
        return value

    def whole(self, name: str, default: int) -> int:
        """The field's value, which is a whole number."""
        value = self.take(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise another_kind(self.where, name, value, "a whole number")
        return value

    def number(self, name: str, default: float) -> float:
        """The field's value, which is a number."""
        value = self.take(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise another_kind(self.where, name, value, "a number")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """The field's value, which is true or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise another_kind(self.where, name, value, "true or false")
        return value

    def one_of(self, name: str, values: tuple[str, ...], default: str) -> str:
        """The field's value, which is one of a few words."""
        value = str(self.take(name, default)).lower()
        if value not in values:
            raise another_kind(self.where, name, self.take(name), f"one of {', '.join(values)}")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        """The field's value, which holds fields itself."""
        value = self.take(name, {})
        if not isinstance(value, Mapping):
            raise another_kind(self.where, name, value, "a mapping of fields")
        return value

    def names(self, name: str) -> list[str] | None:
        """A list of names, also when it is written as one text with commas."""
        value = self.take(name)
        entries = value.split(",") if isinstance(value, str) else value
        if entries is None:
            return None
        if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
            raise another_kind(self.where, name, value, "a list of names")
        return [entry.strip() for entry in entries if entry.strip()]

    def renamed(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The fields present, under the names that PEFT gives them. `names` maps trainer's to PEFT's."""
        values = {peft: self.take(name) for name, peft in names.items()}
        return {name: value for name, value in values.items() if value is not None}

    def refusal(self, why: str) -> InspectionError:
        """The error for a file of this trainer that sets up no adapter, or whose meaning cannot be kept."""
        return InspectionError(f"{self.where} is a config of {self._dialect.trainer} {why}")

    def notes(self) -> tuple[str, ...]:
        """What was recognised, what is not followed, and which fields do not matter here."""
        rest = dict(self._rest())
        quantised = [name for name in rest if _QUANTISED.search(name)]
        precision = [name for name in rest if name not in quantised and _PRECISION.search(name)]
        beside = sorted(name for name in rest if name not in (*quantised, *precision) and not self._matters(name))
        unknown = [name for name in rest if name not in (*quantised, *precision, *beside) and rest[name]]
        return (
            f"{self.where} is a config of {self._dialect.trainer}" + self._indifferent(beside),
            *([f"{quantised[0]}: the base is inspected with plain linear layers of the same names and shapes"] if quantised else ()),
            *(
                [f"{listed(precision, 6)}: precision is not followed, layers and gradients are those of the config's own"]
                if precision
                else ()
            ),
            *(f"warning: {name} is not followed: {self._consequence(name)}" for name in unknown),
        )

    def _indifferent(self, beside: list[str]) -> str:
        """Fields that decide nothing here, a section by its name where all of it is of no account."""
        return f"; these fields do not matter here: {listed(beside, 6)}" if beside else ""

    def _matters(self, name: str) -> bool:
        if name in self._dialect.indifferent or name.partition(".")[0] in self._dialect.indifferent:
            return False
        return name in self._dialect.warned or bool(_DECIDING.search(name) and not _ASIDE.search(name))

    def _consequence(self, name: str) -> str:
        return self._dialect.warned.get(name, f"what {self._dialect.trainer} makes of it may decide what is trained")

    def _rest(self) -> Iterator[tuple[str, Any]]:
        """Fields without a meaning here that have a value, by dotted name; a section that is of no account as a whole by its own."""
        followed = self._dialect.decides
        for name, value in self._data.items():
            inside = [(f"{name}.{below}", each) for below, each in _leaves(value)]
            known = name in followed or (all(f"{name}.{below}" in followed for below, _ in _leaves(value)) and bool(inside))
            if known or value is None or value is False:
                continue
            if not inside or not any(path in followed or self._matters(path) for path, _ in inside):
                yield name, value
                continue
            yield from ((path, each) for path, each in inside if not _below(path, followed) and each not in (None, False))


def _below(path: str, followed: Mapping[str, str]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:end]) in followed for end in range(1, len(parts) + 1))


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    for name, below in value.items() if isinstance(value, Mapping) else ():
        if isinstance(below, Mapping) and below:
            yield from ((f"{name}.{path}", each) for path, each in _leaves(below))
        else:
            yield str(name), below
