"""A module that the checkpoint does not bring was frozen by the wrapping and is in no `modules_to_save`.

`get_peft_model` freezes everything inside the model it is given: a classification head that was just
initialised, a projector added before the wrapping. They stay random while the adapter trains around them.

List them in `modules_to_save`, give the task type for a head, or add them after the wrapping, outside.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Severity, Structure
from peft_inspect.rules.entries import adapters_with_targets, entries, names_to_save, topmost_fresh
from peft_inspect.rules.examples import tiny_classifier
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted, quoted, setting_fix


def check(structure: Structure) -> Iterator[Finding]:
    """The outermost fresh modules of each base model all of whose weights are frozen; adapters for inference train nothing anyway."""
    seen = {p.path.partition(".modules_to_save.")[0] for p in structure.parameters if p.role == "saved"}  # frozen later, if they are
    for adapter in adapters_with_targets(structure):
        frozen = {name: path for name, path in topmost_fresh(structure, adapter).items() if path not in seen}
        if frozen and not adapter.inference_mode:
            seen.update(frozen.values())
            saved = [target.entry for target in entries(adapter, "modules_to_save") if target.matched]
            names = names_to_save(frozen, structure)
            suggestion = {"modules_to_save": [*saved, *names]} if names else {}
            weights = sum(p.numel for p in structure.parameters if any(_in(p.module, path) for path in frozen.values()))
            yield RULE.finding(
                f"{quoted(frozen)} {'is' if len(frozen) == 1 else 'are'} new to the pretrained model ({counted(weights, 'parameter')}) and "
                "frozen: no checkpoint brings these weights and nothing trains them",
                frozen.values(),
                adapter=adapter.name,
                facts={"parameters": weights},
                suggestion=suggestion,
                origin=Origin("frozen"),
                fix=setting_fix(
                    suggestion, "unfreeze it after the wrapping: modules_to_save would reach other modules by the end of its name"
                ),
            )


def _in(module: str, path: str) -> bool:
    return module == path or module.startswith(f"{path}.")


def broken() -> Example:
    """A classification head, and no task type that would include it."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_classifier(), LoraConfig(target_modules=["q_proj", "v_proj"])))


def fixed() -> Example:
    """The task type adds the head."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_classifier(), LoraConfig(target_modules=["q_proj", "v_proj"], task_type="SEQ_CLS")))


RULE = Rule(
    "PI113",
    "untrained-new-module",
    Severity.WARNING,
    over=Structure,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI110", "PI406"),
    because="An entry of modules_to_save that reached nothing, or a file without the module, says why it is not trained.",
)
