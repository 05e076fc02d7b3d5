"""A project's own configuration: `[tool.peft-inspect]` in pyproject.toml, or the same keys in peft-inspect.toml.

fail-on = "error"

[ignore]
PI103 = "both towers on purpose"

[targets.speech]
model = "train.py:build_model"
batch = "train.py:make_batch"
expect = { adapter-layers = 192, trainable-parameters = [1_000_000, 2_000_000], gradients = "all" }
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peft_inspect.diagnose import named
from peft_inspect.reading import read_text
from peft_inspect.records import Expectations, InspectionError, Request, Severity, text_of

OWN_FILE, PROJECT_FILE, TABLE = "peft-inspect.toml", "pyproject.toml", "tool.peft-inspect"
_OURS = re.compile("peft[-_]?inspect", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """One thing to check, by its name."""

    name: str
    request: Request
    select: tuple[str, ...] = ()
    ignore: Mapping[str, str] = field(default_factory=dict)  # code, name or prefix → reason
    fail_on: str | None = None
    expect: Expectations | None = None


@dataclass(frozen=True)
class Config:
    """What the project's file says; empty without one."""

    file: Path | None = None
    select: tuple[str, ...] = ()
    ignore: Mapping[str, str] = field(default_factory=dict)
    fail_on: str | None = None
    targets: Mapping[str, Target] = field(default_factory=dict)
    baseline: str | None = None

    def target(self, name: str, request: Request) -> Target:
        """A request that no target names, judged as the project wants everything judged."""
        return Target(name, request, self.select, self.ignore, self.fail_on)


def read_config(start: Path, file: str | None = None) -> Config:
    """The nearest configuration at or above `start`; peft-inspect.toml wins over pyproject.toml beside it.

    Args:
        start: a folder.
        file: the file to read instead.

    Raises:
        InspectionError: the file is missing or malformed, has an unknown key or a value of the wrong kind.
    """
    if file is not None:
        path = Path(file)
        if not path.is_file():
            raise InspectionError(f"there is no configuration file {file}")
        return _config(path, _table(path) or {})
    for folder in (start, *start.parents):
        for name in (OWN_FILE, PROJECT_FILE):
            path = folder / name
            if path.is_file() and (table := _table(path)) is not None:
                return _config(path, table)
        if (folder / ".git").exists():
            break
    return Config()


def _table(path: Path) -> dict[str, Any] | None:
    """The keys of a file that are ours; None where there are none."""
    if path.name != PROJECT_FILE:
        return _toml(path)
    text = read_text(path, errors="replace")
    if not _OURS.search(text):  # spares an error about a file that is not for us
        return None
    tools = _toml(path).get("tool", {})
    for name, found in tools.items() if isinstance(tools, dict) else ():
        if _OURS.fullmatch(name):
            if f"tool.{name}" != TABLE:
                raise InspectionError(f"{path}: the table is called [{TABLE}], not [tool.{name}]")
            return _is_table(found, f"{path} {TABLE}")
    return None


def _toml(path: Path) -> dict[str, Any]:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # one parser under two names
    try:
        found: dict[str, Any] = toml.loads(read_text(path, encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise InspectionError(f"{path} is not valid TOML: {text_of(error)}") from error
    return found


def _config(path: Path, table: Mapping[str, Any]) -> Config:
    where = f"{path} [{TABLE}]" if path.name == PROJECT_FILE else str(path)
    values = _values(table, _TOP, where)
    common = Config(path, tuple(values.get("select", ())), values.get("ignore", {}), values.get("fail-on"))
    baseline = values.get("baseline")
    tables = values.get("targets", {})
    if "" in tables:
        raise InspectionError(f"{where}: a target needs a name")
    targets = {name: _target(name, keys, common, f"{where} targets.{name}") for name, keys in tables.items()}
    return replace(common, targets=targets, baseline=baseline and str(path.parent / baseline))


def _target(name: str, keys: Any, common: Config, where: str) -> Target:
    values = _values(_is_table(keys, where), _TARGET, where)
    if "model" not in values and "lora" not in values:
        raise InspectionError(f'{where} names no model: add model = "…", or a lora file that names its base model')
    assert common.file is not None
    fields = {key.replace("-", "_"): values[key] for key in _REQUEST if key in values}
    fields = {key: _from(common.file.parent, value) if key in _PATHS else value for key, value in fields.items()}
    request = Request(**fields, lora_fields=values.get("lora-fields", {}), config_fields=values.get("config-fields", {}))
    expect = {key.replace("-", "_"): value for key, value in _values(values.get("expect", {}), _EXPECT, f"{where} expect").items()}
    return Target(
        name,
        request,
        select=tuple(values.get("select", common.select)),
        ignore={**common.ignore, **values.get("ignore", {})},
        fail_on=values.get("fail-on", common.fail_on),
        expect=Expectations(**expect) if expect else None,
    )


def _from(folder: Path, value: str) -> str:
    """A path as it is written beside the configuration; everything that is no file there stays as it is."""
    file, colon, rest = value.partition(":")
    path = folder / file
    return f"{path}{colon}{rest}" if file and path.exists() and folder.resolve() != Path.cwd() else value


def _values(table: Mapping[str, Any], known: Mapping[str, Callable[[Any, str], Any]], where: str) -> dict[str, Any]:
    """The values of a table, each checked. Underscores are taken for hyphens."""
    found = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in known:
            raise InspectionError(f"unknown key {key!r} in {where}; {_advice(name, known)}")
        if name in found:
            raise InspectionError(f"{where} says {name!r} twice, once with an underscore")
        found[name] = known[name](value, f"{where}: {key}")
    return found


def _advice(name: str, known: Collection[str]) -> str:
    """Where an unknown key belongs, else which one was probably meant."""
    for table, keys in (("lora-fields", _LORA_FLAGS), ("config-fields", ("config-set",)), ("[targets.NAME]", _TARGET), ("expect", _EXPECT)):
        if name in keys:
            return f"it belongs in {table}"
    if name == TABLE.partition(".")[0]:
        return f"in a {OWN_FILE} the keys stand without [{TABLE}]"
    closest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"the closest is {closest[0]!r}" if closest else f"known are {', '.join(known)}"


def _wrong(where: str, wanted: str, value: Any) -> InspectionError:
    return InspectionError(f"{where} must be {wanted}, and is {value!r}")


def _is_text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(where, "a text", value)
    return value


def _is_flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, "true or false", value)
    return value


def _is_count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(where, "a whole number", value)
    return value


def _is_range(value: Any, where: str) -> tuple[int, int]:
    bounds = value if isinstance(value, list) else [value, value]
    numbers = all(isinstance(bound, int) and not isinstance(bound, bool) for bound in bounds)
    if len(bounds) != 2 or not numbers or not 0 <= bounds[0] <= bounds[1]:
        raise _wrong(where, "a whole number, or [at least, at most]", value)
    return bounds[0], bounds[1]


def _is_names(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _wrong(where, 'a list of names, such as ["PI2", "PI304"]', value)
    _exist(value, where)
    return value


def _exist(patterns: Iterable[str], where: str) -> None:
    try:
        named(patterns)
    except InspectionError as error:
        raise InspectionError(f"{where}: {error}") from None


def _is_reasons(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(reason, str) and reason.strip() for reason in value.values()):
        raise _wrong(where, 'a table of rules with the reason of each, such as { PI103 = "both towers on purpose" }', value)
    _exist(value, where)
    return value


def _is_table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, "a table", value)
    return value


def _is_one_of(*choices: str) -> Callable[[Any, str], str]:
    def chosen(value: Any, where: str) -> str:
        if value not in choices:
            raise _wrong(where, f"one of {', '.join(choices)}", value)
        return str(value)

    return chosen


_FAIL_ON = _is_one_of(*(severity.value for severity in Severity), "never")
_PATHS = ("model", "lora", "adapter", "base", "batch", "loss", "optimizer", "image", "audio")  # or ids, or code in a file
_REQUEST: Mapping[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys((*_PATHS, "base-class", "text"), _is_text),
    "weights": _is_one_of("none", "random", "pretrained"),
    "as-device": _is_one_of("cuda"),
    "reduce": _is_flag,
    "trust-remote-code": _is_flag,
}
_JUDGE: Mapping[str, Callable[[Any, str], Any]] = {"select": _is_names, "ignore": _is_reasons, "fail-on": _FAIL_ON}
_TOP = {**_JUDGE, "targets": _is_table, "baseline": _is_text}
_TARGET = {**_REQUEST, **_JUDGE, "lora-fields": _is_table, "config-fields": _is_table, "expect": _is_table}
_LORA_FLAGS = (
    *("target-modules", "target-parameters", "exclude-modules", "modules-to-save", "r", "rank", "lora-alpha", "task-type"),
    *("set", "layers-to-transform", "rank-pattern", "alpha-pattern", "use-rslora", "use-dora"),
)
_EXPECT: Mapping[str, Callable[[Any, str], Any]] = {
    "adapter-layers": _is_count,
    "trainable-parameters": _is_range,
    "gradients": _is_one_of("all"),
}
