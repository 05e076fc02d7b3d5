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
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peft_inspect.records import InspectionError, Request, Severity

OWN_FILE, PROJECT_FILE, TABLE = "peft-inspect.toml", "pyproject.toml", "tool.peft-inspect"


@dataclass(frozen=True)
class Expectations:
    """What a project pins of a target. None: not pinned."""

    adapter_layers: int | None = None
    trainable_parameters: tuple[int, int] | None = None  # at least, at most
    gradients: str | None = None  # "all": every adapter parameter gets one


@dataclass(frozen=True)
class Target:
    """One thing to check, by its name."""

    name: str
    request: Request
    select: tuple[str, ...] = ()
    ignore: Mapping[str, str] = field(default_factory=dict)  # code, name or prefix → reason
    fail_on: str | None = None
    expect: Expectations = Expectations()


@dataclass(frozen=True)
class Config:
    """What the project's file says; empty without one."""

    file: Path | None = None
    select: tuple[str, ...] = ()
    ignore: Mapping[str, str] = field(default_factory=dict)
    fail_on: str | None = None
    targets: Mapping[str, Target] = field(default_factory=dict)

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
    text = path.read_text(encoding="utf-8", errors="replace")
    if "peft-inspect" not in text:  # spares Python 3.10 without tomli an error about a file that is not for us
        return None
    found: dict[str, Any] | None = _toml(path).get("tool", {}).get("peft-inspect")
    return found


def _toml(path: Path) -> dict[str, Any]:
    # tomllib is part of Python from 3.11 on; on 3.10 the same parser is called tomli.
    name = next((name for name in ("tomllib", "tomli") if importlib.util.find_spec(name)), None)
    if name is None:
        raise InspectionError(f"{path}: Python 3.10 needs the package tomli to read TOML")
    toml = importlib.import_module(name)
    try:
        found: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InspectionError(f"{path} is not valid TOML: {error}") from error
    return found


def _config(path: Path, table: Mapping[str, Any]) -> Config:
    where = f"{path} [{TABLE}]" if path.name == PROJECT_FILE else str(path)
    values = _values(table, _TOP, where)
    common = Config(path, tuple(values.get("select", ())), values.get("ignore", {}), values.get("fail-on"))
    targets = {name: _target(name, keys, common, f"{where} targets.{name}") for name, keys in values.get("targets", {}).items()}
    return replace(common, targets=targets)


def _target(name: str, keys: Any, common: Config, where: str) -> Target:
    values = _values(_is_table(keys, where), _TARGET, where)
    if "model" not in values and "lora" not in values:
        raise InspectionError(f'{where} names no model: add model = "…", or a lora file that names its base model')
    assert common.file is not None
    fields = {key.replace("-", "_"): values[key] for key in _REQUEST if key in values}
    fields = {key: _from(common.file.parent, value) if isinstance(value, str) else value for key, value in fields.items()}
    request = Request(**fields, lora_fields=values.get("lora-fields", {}), config_fields=values.get("config-fields", {}))
    expect = _values(values.get("expect", {}), _EXPECT, f"{where} expect")
    return Target(
        name,
        request,
        select=tuple(values.get("select", common.select)),
        ignore={**common.ignore, **values.get("ignore", {})},
        fail_on=values.get("fail-on", common.fail_on),
        expect=Expectations(**{key.replace("-", "_"): value for key, value in expect.items()}),
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
            closest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; the closest is {closest[0]!r}" if closest else f"; known are {', '.join(known)}"
            raise InspectionError(f"unknown key {key!r} in {where}{hint}")
        found[name] = known[name](value, f"{where}: {key}")
    return found


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
        raise _wrong(where, "a number", value)
    return value


def _is_range(value: Any, where: str) -> tuple[int, int]:
    bounds = value if isinstance(value, list) else [value, value]
    if len(bounds) != 2 or _is_count(bounds[0], where) > _is_count(bounds[1], where):
        raise _wrong(where, "a number, or [at least, at most]", value)
    return bounds[0], bounds[1]


def _is_names(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _wrong(where, 'a list of names, such as ["PI2", "PI304"]', value)
    return value


def _is_reasons(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(reason, str) and reason.strip() for reason in value.values()):
        raise _wrong(where, 'a table of rules with the reason of each, such as { PI103 = "both towers on purpose" }', value)
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
_REQUEST: Mapping[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("model", "lora", "adapter", "base", "base-class", "batch", "loss", "optimizer", "text", "image", "audio"), _is_text),
    "weights": _is_one_of("none", "random", "pretrained"),
    "reduce": _is_flag,
    "trust-remote-code": _is_flag,
}
_JUDGE: Mapping[str, Callable[[Any, str], Any]] = {"select": _is_names, "ignore": _is_reasons, "fail-on": _FAIL_ON}
_TOP = {**_JUDGE, "targets": _is_table}
_TARGET = {**_REQUEST, **_JUDGE, "lora-fields": _is_table, "config-fields": _is_table, "expect": _is_table}
_EXPECT: Mapping[str, Callable[[Any, str], Any]] = {
    "adapter-layers": _is_count,
    "trainable-parameters": _is_range,
    "gradients": _is_one_of("all"),
}
