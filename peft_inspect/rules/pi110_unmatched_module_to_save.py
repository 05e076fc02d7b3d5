"""An entry of `modules_to_save` names no module.

The head of a model is called `score` in one architecture and `classifier` in the next. An entry that
names neither is passed over, and the head stays frozen at its random initialisation.

Use the name that this model has, or give the task type, which adds the usual names by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import AdapterInfo, ConfigEntry, Finding, Origin, Severity, Structure
from peft_inspect.rules.entries import adapters_with_targets, entries, names_to_save, topmost_fresh, with_ties
from peft_inspect.rules.examples import tiny_classifier
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import quoted, setting_fix

_OF_TASK = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",)}


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the entries that wrapped nothing; what a task type adds need not exist beside an entry that does."""
    for adapter in adapters_with_targets(structure):
        unmatched = list(_unmatched(adapter))
        if unmatched:
            meant = topmost_fresh(structure, adapter)
            kept = [target.entry for target in entries(adapter, "modules_to_save") if target.matched]
            near = [name for target in unmatched for name in (target.closest[:1] or meant)]
            saved = list(dict.fromkeys((*kept, *names_to_save(near, structure))))
            suggestion = with_ties({"modules_to_save": saved}, adapter, structure) if saved else {"modules_to_save": None}
            yield RULE.finding(
                f"adapter {adapter.name!r}: modules_to_save names {quoted(target.entry for target in unmatched)}, and there is none"
                + (f"; it has {quoted(meant)}, which stays frozen" if meant else ""),
                meant.values(),
                adapter=adapter.name,
                facts={"unmatched": [target.entry for target in unmatched]},
                suggestion=suggestion,
                origin=Origin("adapter-config", (*(target.entry for target in unmatched), "modules_to_save"), adapter.name),
                fix=setting_fix(suggestion, ""),
            )


def _unmatched(adapter: AdapterInfo) -> Iterator[ConfigEntry]:
    targets = entries(adapter, "modules_to_save")
    added = _OF_TASK.get(str(adapter.config.get("task_type")), ()) if any(target.matched for target in targets) else ()
    yield from (target for target in targets if not target.matched and target.entry not in added)


def broken() -> Example:
    """The name of another architecture's head."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_classifier(), LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"])))


def fixed() -> Example:
    """The name of this model's head."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_classifier(), LoraConfig(target_modules=["q_proj"], modules_to_save=["score"])))


RULE = Rule("PI110", "unmatched-module-to-save", Severity.ERROR, over=Structure, check=check, broken=broken, fixed=fixed)
