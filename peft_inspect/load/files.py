"""Reading JSON, YAML and TOML mappings, with errors that say where the file is wrong.

YAML that a few lines make grow without end is refused before it is built.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from peft_inspect.reading import read_text
from peft_inspect.records import InspectionError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LONGEST_YAML = 4 << 20  # trainers' files have a few thousand; the parser takes a second for each megabyte
_MOST_NODES = 1 << 20  # of YAML with its aliases written out


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a .json, .yaml, .yml or .toml file.

    Raises:
        InspectionError: the file is missing, malformed, of another kind, or does not hold a mapping.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise InspectionError(f"{path} is read by its ending, and {path.suffix or 'no ending'!r} is none of {', '.join(_PARSERS)}")
    data = parse(path, read_text(path))
    if not isinstance(data, dict):
        raise InspectionError(f"{path} holds {_kind(data)} where a mapping of fields is needed")
    for name in data:
        if not isinstance(name, str):
            raise InspectionError(f"{path} has {name!r} where the name of a field is needed")
    return data


def plain_value(value: Any) -> Any:
    """A value as typed on a command line: JSON where it is JSON, the text itself otherwise."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # no JSON, a number of more digits than Python reads, or nested without end
        return {"True": True, "False": False, "None": None}.get(value, value)


def _parse_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InspectionError(f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise InspectionError(f"{path} is JSON that cannot be read: {_too_much(error)}") from error


def _parse_yaml(path: Path, text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """As trainers read it: 1e-4 is a number, which YAML 1.1 wants written as 1.0e-4."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("+-.0123456789"))
    if len(text) > _LONGEST_YAML:
        raise InspectionError(f"{path} has {len(text):,} characters, and no more than {_LONGEST_YAML:,} are read of a YAML file")
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if (nodes := _written_out(node, {})) > _MOST_NODES:
            raise InspectionError(f"{path} is YAML that cannot be read: its aliases {_grown(nodes)}")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise InspectionError(f"{path} is not valid YAML: {problem}{where}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # no such date as 2026-13-01, `!!int` alone
        raise InspectionError(f"{path} is YAML that cannot be read: {_too_much(error)}") from error


def _written_out(node: Any, known: dict[int, float]) -> float:
    """How many values YAML has with each alias in the place of its name; infinitely many where one holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")  # until it is known: a node inside itself
        inner = [] if isinstance(node.value, str) else node.value
        known[id(node)] = 1 + sum(
            _written_out(each, known) for entry in inner for each in (entry if isinstance(entry, tuple) else (entry,))
        )
    return known[id(node)]


def _grown(nodes: float) -> str:
    return "refer to themselves" if nodes == float("inf") else f"stand for {nodes:,.0f} values"


def _parse_toml(path: Path, text: str) -> Any:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # one parser under two names
    try:
        return toml.loads(text)
    except toml.TOMLDecodeError as error:
        raise InspectionError(f"{path} is not valid TOML: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InspectionError(f"{path} is TOML that cannot be read: {_too_much(error)}") from error


def _too_much(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error) if isinstance(error, ValueError) else f"a value does not fit its tag ({text_of(error)})"


def _kind(data: Any) -> str:
    return {list: "a list", str: "plain text", type(None): "nothing"}.get(type(data), f"a {type(data).__name__}")


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_PARSERS: dict[str, Callable[[Path, str], Any]] = {".json": _parse_json, ".yaml": _parse_yaml, ".yml": _parse_yaml, ".toml": _parse_toml}
