"""What is built is not what the lock file says.

An upgrade of transformers or peft, or a changed config, moved, renamed or lost adapter layers, or changed
their rank. Adapters that were trained before may load into nothing. It is judged whatever rules are selected.

If the change is meant, write the lock again with `peft-inspect lock`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator

from peft_inspect.records import Finding, Lock, Locked, Pinned, Pins, Severity
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule


def check(pinned: Pinned) -> Iterator[Finding]:
    """The lines that differ, and which libraries are others since."""
    lock, now = pinned.pins.lock, pinned.now
    if lock is None or lock.then == now:
        return
    if lock.then is None:
        yield RULE.finding(f"{lock.target} is not in the lock file", fix="add it with `peft-inspect lock`")
        return
    lines = _difference(lock.then, now)
    upgrades = [
        f"{name} {lock.versions.get(name)} → {version}"
        for name, version in pinned.versions.items()
        if lock.versions.get(name) not in (None, version)
    ]
    since = f" (since then: {', '.join(upgrades)})" if upgrades else ""
    yield RULE.finding(
        f"what is built differs from the lock file{since}:\n" + "\n".join(lines),
        facts={"difference": lines, "upgrades": upgrades},
        fix="load adapters trained before with `--adapter` to see whether they still fit; if the change is meant, run `peft-inspect lock`",
    )


def _difference(then: Locked, now: Locked) -> list[str]:
    """Removed lines with -, added ones with +, each as it stands in the file."""
    before, after = (json.dumps(value, indent=1).splitlines() for value in (then, now))
    changed = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    return [f"{line[0]} {line[2:].strip().rstrip(',')}" for line in changed]


def _unlocked(pinned: Pinned) -> str | None:
    return "no lock file: see `check --locked`" if pinned.pins.lock is None else None


def broken() -> Example:
    """The lock was written when the value projections carried adapters as well."""
    return _locked_with("{q_proj,v_proj}", layers=4, trainable=768)


def fixed() -> Example:
    """The lock was written again."""
    return _locked_with("q_proj", layers=2, trainable=512)


def _locked_with(names: str, *, layers: int, trainable: int) -> Example:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"], r=8, lora_alpha=16))
    then = {
        "class": "PeftModel",
        "base_class": "LlamaForCausalLM",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable": trainable,
        "adapters": {
            "default": {
                "type": "LORA",
                "layers": layers,
                "modules": [f"base_model.model.model.layers.0-1.self_attn.{names}: Linear, r=8, alpha=16"],
            }
        },
    }
    return Example(model, text_batch(), pins=Pins(lock=Lock("speech", then, {})))


RULE = Rule("PI002", "lock-changed", Severity.ERROR, over=Pinned, check=check, broken=broken, fixed=fixed, skip=_unlocked)
