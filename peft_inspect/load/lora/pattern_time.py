"""Regular expressions that backtrack for ever: tried in a process of its own, with a limit, before PEFT matches them in this one.

Python's engine takes the next branch until all are tried, and nothing but the end of its process stops it: no signal gets through, on
no thread. PEFT matches with that engine, so that another one's answer says nothing about how long this one takes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    import torch

_SECONDS = 3  # of CPU for all patterns on all names: those that people write take hundredths
_WAIT = 60  # seconds by the clock, on a machine that does much else
_REPEATS = 2  # signs of repetition that need no trial: the time grows with no more than the square of a name's length
_SIGNS = re.compile(r"(?<!\()[*+?{]|\(")
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
_TRIAL = f"""
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, ({_SECONDS}, {_SECONDS + 1}))
except (ImportError, OSError, ValueError):
    pass
tries, names = json.load(sys.stdin)
for number, (pattern, how) in enumerate(tries):
    print(number, flush=True)
    try:
        match = getattr(re.compile(pattern), how)
    except (re.error, RecursionError, OverflowError):
        continue
    for name in names:
        match(name)
print("done")
"""


class Pattern(NamedTuple):
    """One regular expression: the field that holds it, as written there, as it is compiled, and the method that matches it."""

    field: str
    written: str
    compiled: str
    how: str = "match"


def require_end(fields: Mapping[str, Any], model: torch.nn.Module) -> None:
    """Refuse a LoRA config with a pattern that does not come to an end on the names of this model.

    Raises:
        InspectionError: it names the field and the pattern.
    """
    names = [name for name, _ in model.named_modules()] + [name for name, _ in model.named_parameters()]
    require_quick(_of_config(fields), names)


def require_quick(patterns: Iterable[Pattern], names: list[str]) -> None:
    """Refuse patterns that take more than seconds on these names.

    Raises:
        InspectionError: it names the field and the pattern.
    """
    doubtful = [pattern for pattern in patterns if _may_backtrack(pattern.compiled)]
    if not doubtful or not sys.executable:
        return
    tries = json.dumps([[(pattern.compiled, pattern.how) for pattern in doubtful], names])
    try:
        trial = subprocess.run(  # noqa: S603 - Python itself; the patterns are data on its stdin
            [sys.executable, "-I", "-S", "-c", _TRIAL], input=tries, capture_output=True, text=True, timeout=_WAIT, check=False
        )
        said, ended = trial.stdout, trial.returncode >= 0
    except subprocess.TimeoutExpired as error:
        said, ended = _text(error.stdout), False
    except OSError:  # no process can be started here: nothing is known, and most patterns end
        return
    if not ended and said.split():
        guilty = doubtful[int(said.split()[-1])]
        shown = guilty.written if len(guilty.written) <= 120 else f"{guilty.written[:117]}..."
        raise InspectionError(
            f"{guilty.field}: the regular expression {shown!r} takes more than {_SECONDS} seconds on the {len(names):,} names of this "
            "model, and may never end: its repetitions can share a name among them in too many ways. Name the layers in a list instead"
        )


def _of_config(fields: Mapping[str, Any]) -> Iterable[Pattern]:
    """What PEFT makes of the fields, and how it matches."""
    for field in ("target_modules", "exclude_modules"):
        if isinstance(value := fields.get(field), str):
            yield Pattern(field, value, value, "fullmatch")
    excluded = fields.get("exclude_modules") or ()
    for entry in (excluded,) if isinstance(excluded, str) else excluded:
        yield Pattern("exclude_modules", entry, entry, "search")
    for field in ("rank_pattern", "alpha_pattern"):
        for key in fields.get(field) or ():
            yield Pattern(field, key, rf"(.*\.)?({key})$")
    lists = fields.get("layers_pattern") or ()
    for entry in (lists,) if isinstance(lists, str) else lists:
        yield Pattern("layers_pattern", entry, rf"(?:^|.*?\.){entry}\.(?P<idx>\d+)\.")
    for entry in fields.get("modules_to_save") or ():
        yield Pattern("modules_to_save", entry, rf"(^|.*\.){entry}($|\..*)")


def _may_backtrack(pattern: str) -> bool:
    return _REPEATED_GROUP.search(pattern) is not None or len(_SIGNS.findall(pattern)) > _REPEATS


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
