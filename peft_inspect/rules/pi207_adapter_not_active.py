"""An adapter that is meant to train is not active.

`add_adapter()` and `load_adapter()` do not activate what they add: the adapter that was active
before keeps running, and the new one never does. A frozen, inactive adapter that serves as a
reference is no fault: one that some pass of the run used, that holds a copy of another
adapter's weights, or whose name says so (`"ref"`, `"reference"`, `"teacher"`, `"ema"` …). Nor is it one where the step itself chooses the adapter.

Call `model.set_adapter("name")`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from peft_inspect.records import AdapterLayerInfo, Finding, Origin, Remedy, Severity, Trace, Unexplained, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted, quoted

_KEPT = frozenset({"ref", "reference", "teacher", "frozen", "old", "ema", "anchor", "initial", "baseline"})  # not to be trained


def check(left: Unexplained) -> Iterator[Finding]:
    """Inactive adapters that train, or that were added to train and never touched since."""
    trace = left.trace
    used = {(path, name) for path, calls in trace.calls_of.items() for call in calls for name in call.active}
    by_step = any(call.chosen and call.enabled and not call.merged for call in trace.calls)
    idle: dict[str, list[AdapterLayerInfo]] = {}
    for name in dict.fromkeys(layer.adapter for layer in trace.structure.adapter_layers):
        rows = [layer for layer in trace.structure.adapter_layers if layer.adapter == name]
        if any(layer.active or (layer.path, name) in used for layer in rows):
            yield from _displaced(left, name)
        elif not by_step and (any(map(trace.structure.trainable, rows)) or _waiting(trace, rows)):
            idle[name] = rows
    if idle:
        yield _inactive(trace, idle)


def _inactive(trace: Trace, idle: dict[str, list[AdapterLayerInfo]]) -> Finding:
    """One finding for all of them: what activates one deactivates the others."""
    active = sorted({layer.adapter for layer in trace.structure.adapter_layers if layer.active})
    rows = [layer for of_adapter in idle.values() for layer in of_adapter]
    state = "trainable" if any(map(trace.structure.trainable, rows)) else "fresh, frozen"
    first = next(iter(idle))
    several = len(idle) > 1
    optimized = not (trace.structure.optimizer or frozenset()).isdisjoint(path for row in rows for path in row.parameters)
    return RULE.finding(
        f"adapter{'s' * several} {quoted(idle)} {'are' if several else 'is'} {state} and not active: {'their' if several else 'its'} "
        f"{counted(len(rows), 'layer')} never ran (active: {', '.join(map(repr, active)) or 'none'})"
        + (", though the optimizer was made to train it" if optimized else ""),
        modules_of(rows),
        adapter=None if several else first,
        origin=Origin("added", adapter=first),
        severity=Severity.ERROR if optimized else None,
        facts={"active": active},
        fix=f"call model.set_adapter with the one that each step trains, or model.base_model.set_adapter({list(idle)!r}) to train all of them"
        if several
        else f"call model.set_adapter({first!r})",
        remedy=None if several else Remedy.ACTIVATE,
    )


def _displaced(left: Unexplained, name: str) -> Iterator[Finding]:
    """Layers whose adapter was active before the forward, which trains another one."""
    trace = left.trace
    layers = [layer for layer in left.dead if layer.adapter == name and trace.structure.trainable(layer)]
    calls = {layer.path: trace.training_calls(layer) for layer in layers}
    rows = [layer for layer in layers if calls[layer.path] and not any(name in call.active for call in calls[layer.path])]
    last = calls[rows[0].path][-1] if rows else None
    if last is not None and _in_turn(trace, rows):
        return
    if last is not None and (last.active or not last.per_sample):  # samples that name the base model alone run disabled
        others = ", ".join(map(repr, last.active)) or "no adapter"
        yield RULE.finding(
            f"adapter {name!r} is trainable, and the pass that is trained runs without it: in its {counted(len(rows), 'layer')} "
            + (f"every sample names {others}" if last.per_sample else f"the forward has made {others} active"),
            modules_of(rows),
            source=last.switched,
            adapter=name,
            facts={"active": list(last.active)},
            fix=f"name {name!r} in adapter_names"
            if last.per_sample
            else f"call model.set_adapter({name!r}) before the pass that is trained",
            remedy=None if last.per_sample else Remedy.ACTIVATE,
        )


def _in_turn(trace: Trace, rows: list[AdapterLayerInfo]) -> bool:
    """Whether the step trains another adapter and nothing else: steps that train their adapters by turns. A reference pass is no such step."""
    calls = [call for row in rows for call in trace.calls_of.get(row.path, ()) if call.phase == "forward"]
    chosen = {name for call in calls for name in call.active}
    trained = any(row.adapter in chosen and trace.reached(row) for row in trace.structure.adapter_layers)
    return trained and len({call.active for call in calls}) == 1 and all(call.carries and call.switched is not None for call in calls)


def _waiting(trace: Trace, rows: list[AdapterLayerInfo]) -> bool:
    """Whether it was added after the active adapter, to train, and holds what it was initialised with, no copy of another's.

    PEFT freezes what it adds without activating, so a fresh reference and a forgotten task look alike but for their names.
    """
    names = [adapter.name for adapter in trace.structure.adapters]
    active = {layer.adapter for layer in trace.structure.adapter_layers if layer.active}
    name = rows[0].adapter
    inference = any(adapter.inference_mode for adapter in trace.structure.adapters if adapter.name == name)
    added_last = name in names and all(names.index(other) < names.index(name) for other in active if other in names)
    fresh = all(any(trace.structure.parameter[path].zero for path in layer.parameters) for layer in rows)
    kept = not _KEPT.isdisjoint(re.split(r"[^a-z]+", name.lower()))
    return added_last and fresh and not inference and not kept and not any(layer.copy_of for layer in rows)


def broken() -> Example:
    """A second adapter was added, and the first keeps training."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    model.add_adapter("task_b", LoraConfig(target_modules=["q_proj"]))
    return Example(model, text_batch())


def fixed() -> Example:
    """The second adapter was made the active one, and the first was taken out."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    model.add_adapter("task_b", LoraConfig(target_modules=["q_proj"]))
    model.set_adapter("task_b")
    model.delete_adapter("default")
    return Example(model, text_batch())


RULE = Rule(
    "PI207",
    "adapter-not-active",
    Severity.WARNING,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI115", "PI116"),
    because="Which adapter another PeftModel over the same base makes active is that one's business.",
)
