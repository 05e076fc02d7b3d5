"""The adapter was made for another base model: another name, class, depth or width.

An adapter holds differences to the weights it was trained on. On another base of the same shape
it loads without a word and does something else; on one of another shape it does not fit.

Load it onto the base model that its config names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peft_inspect.records import AdapterFile, Finding, Severity
from peft_inspect.rules.adapter_examples import adapted, saved
from peft_inspect.rules.adapter_match import Match, blocks_of, incomparable, loaded, match, of_a_shallower_base, shown
from peft_inspect.rules.examples import text_batch
from peft_inspect.rules.rule import Example, Rule


def check(file: AdapterFile) -> Iterator[Finding]:
    """What the config and the tensors say of the base, against the base that is there. Tensors that do not fit make it an error."""
    fit = match(file)
    reasons: dict[str, str] = {}
    if file.base.get("same_name") is False:
        reasons["name"] = f"{file.config.get('base_model_name_or_path')!r} instead of {file.base['name']!r}"
    trained_on = _class(file.config)
    if trained_on and trained_on != file.base.get("class") and not fit.unplaced:
        reasons["class"] = f"class {trained_on} instead of {file.base.get('class')}"
    if fit.too_deep:
        reasons["depth"] = f"{len(fit.too_deep)} tensors are for blocks that this base does not have, such as {shown(fit.too_deep[0].key)}"
    shallower = of_a_shallower_base(file, fit)
    if shallower:
        reasons["depth"] = (
            f"the file is for a base with {blocks_of(fit.placed)} layers, and lacks {len(fit.missing)} tensors for those that only this one "
            f"has, such as {shown(fit.missing[0])}"
        )
    if fit.other_width:
        first = next(mismatch for mismatch in fit.mismatched if mismatch.ranks is None)
        reasons["width"] = f"no tensor fits: {shown(first.tensor.key)} is {list(first.tensor.shape)} and {list(first.wanted)} is needed"
    if reasons:
        yield RULE.finding(
            f"{file.path} was made for another base model: {'; '.join(reasons.values())}",
            _layers(file, fit),
            facts={"file": file.path, "base": {key: value for key, value in file.base.items() if key != "same_name"}, "differs": reasons},
            fix=_fix(file, trained_on if set(reasons) == {"class"} else None),
            severity=Severity.ERROR if fit.too_deep or shallower or fit.other_width else None,
        )


def _class(config: Mapping[str, Any]) -> str | None:
    """The class of the base that PEFT noted where no task type was given."""
    mapping = config.get("auto_mapping")
    return mapping.get("base_model_class") if isinstance(mapping, Mapping) else None


def _layers(file: AdapterFile, fit: Match) -> tuple[str, ...]:
    """The layers whose tensors do not fit."""
    return tuple(file.layer_of[loaded(mismatch.tensor)] for mismatch in fit.mismatched) if fit.other_width else ()


def _fix(file: AdapterFile, other_class: str | None) -> str:
    name = file.config.get("base_model_name_or_path") or "the base model that it was trained on"
    return f"load it onto {name}" if other_class is None else f"load it onto a {other_class} of {name}"


def broken() -> Example:
    """Trained on a base of width 16, loaded onto one of width 32."""
    return Example(adapted(hidden_size=32), text_batch(), adapter=saved(adapted(hidden_size=16)))


def fixed() -> Example:
    """The base it was trained on."""
    return Example(adapted(hidden_size=16), text_batch(), adapter=saved(adapted(hidden_size=16)))


RULE = Rule("PI405", "base-model-mismatch", Severity.WARNING, over=AdapterFile, check=check, broken=broken, fixed=fixed, skip=incomparable)
