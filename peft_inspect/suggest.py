"""The LoRA config that the findings suggest in the place of the one that was inspected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peft_inspect.records import Finding, Severity


def corrected(config: Mapping[str, Any], findings: Iterable[Finding]) -> dict[str, Any]:
    """A config with everything that errors and warnings suggest, and otherwise as it was: what a note shows may be meant.

    Several findings may speak of one list: what any of them adds is added, what any of them leaves out is left out.
    A regular expression cannot be joined with a list; the first one takes the place of the field. Nothing to keep: None.

    Args:
        config: the fields of a LoRA config as plain values.
        findings: of an inspection of a model that was wrapped with this config, most severe first.
    """
    suggestions = [finding.suggestion for finding in findings if finding.severity is not Severity.NOTE]
    fields = dict.fromkeys(field for suggestion in suggestions for field in suggestion)
    proposed = {field: [suggestion[field] for suggestion in suggestions if field in suggestion] for field in fields}
    return {**config, **{field: _joined(config.get(field), values) for field, values in proposed.items()}}


def _joined(held: Any, values: Sequence[Any]) -> Any:
    whole = [value for value in values if value is not None and not isinstance(value, list)]
    lists = [value or [] for value in values]
    if whole or isinstance(held, (str, int)):
        return (whole or values)[0]
    before = list(held or ())
    kept = [entry for entry in before if all(entry in value for value in lists)]
    return list(dict.fromkeys((*kept, *(entry for value in lists for entry in value if entry not in before)))) or None
