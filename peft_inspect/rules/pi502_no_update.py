"""The optimizer stepped, and the adapter is what it was; or it never stepped.

The learning rate is 0, the gradients were scaled to nothing before the step, or it was another optimizer that stepped:
one that was built first and is still the one that the loop, or the schedule, calls. With more steps to accumulate than
there are batches, none steps at all. Or it moved the adapter, and something put the old values back before the model had run again.

Look at what stands between the backward and the step. A schedule that starts at 0 and warms up is no fault; one that stays at 0
while it goes on is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peft_inspect.records import Finding, OptimizerStep, Origin, Severity, Source, Trace, Update
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.updates import is_cleared, is_for_another, is_rounded_away, modules, no_step, trained
from peft_inspect.rules.words import counted


def check(trace: Trace) -> Iterator[Finding]:
    """No value of any adapter weight with a gradient has changed."""
    if trace.unstepped:
        rows = [row for row in trace.gradients if row.arrived and row.layer]
        yield RULE.finding(
            f"the program ran {counted(trace.unstepped, 'backward')} and came to its end without one step of its optimizer: none of "
            f"{counted(len(rows), 'adapter parameter')} with a gradient was updated",
            dict.fromkeys(row.layer for row in rows if row.layer),
            source=trace.structure.optimizer_by,
            facts={"backwards": trace.unstepped},
            fix="call optimizer.step(): where gradients accumulate, also after the last batches that do not fill a step",
        )
    updates = trained(trace)
    if trace.update is not None and updates and _is_undone(trace.update, updates):
        yield RULE.finding(
            f"{trace.update.optimizer} moved the adapter, and when the model had run again, all {len(trace.update.undone)} parameters that "
            "it moved held their old values: something writes them back",
            modules(trace, updates),
            facts={"parameters": len(trace.update.undone)},
            fix="look for what writes into weights between the steps or in the forward: a moving average that is copied back, "
            "a state that is loaded in the loop, a hook",
        )
    if trace.update is None or not updates or any(update.moved for update in updates) or is_cleared(trace) or is_rounded_away(trace):
        return
    if is_for_another(trace.structure):
        return
    why = _why(trace.update, updates)
    if why is not None:
        yield RULE.finding(
            f"{trace.update.optimizer} stepped, and all {len(updates)} adapter parameters with a gradient are what they were: {why[0]}",
            modules(trace, updates),
            facts={"parameters": len(updates), "held": sum(update.held for update in updates)},
            source=why[2],
            origin=why[3],
            fix=why[1],
        )


def _is_undone(step: OptimizerStep, updates: Sequence[Update]) -> bool:
    moved = {update.path for update in updates if update.moved}
    return bool(moved) and moved <= step.undone


def _why(step: OptimizerStep, updates: Sequence[Update]) -> tuple[str, str, Source | None, Origin | None] | None:
    """The reason, what to do, and where, or what was done before; None where a schedule begins with nothing."""
    held = [update for update in updates if update.held]
    if not held:
        fix = "call step() on the optimizer that was built from the adapter's parameters"
        return "it is another optimizer that holds them", fix, step.made_by, None
    if all(update.lr == 0 for update in held):
        if any(update.scheduled_lr for update in held):
            stays = "its schedule goes on, and the learning rate that it gives stays 0", "look at what the schedule computes step by step"
            return (*stays, step.schedule_by, None) if step.stays_zero else None
        fix = f"give {step.optimizer} a learning rate, and look at what its schedule makes of it"
        return "its learning rate is 0", fix, step.made_by, Origin("optimizer", ("lr",))
    if all(update.asked == 0 for update in held):
        return (
            "their gradients were scaled to nothing between the backward and the step",
            "look at the clipping: a max_norm of 0 leaves nothing of any gradient",
            None,
            Origin("clipping"),
        )
    return "its step wrote nothing", "look at the step of this optimizer, and at what is wrapped around it", step.made_by, None


def broken() -> Example:
    """A learning rate that came out as 0."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)

    def step() -> None:
        model(**text_batch()).loss.backward()
        optimizer.step()

    return Example(model, step=step)


def fixed() -> Example:
    """A learning rate."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)

    def step() -> None:
        model(**text_batch()).loss.backward()
        optimizer.step()

    return Example(model, step=step)


RULE = Rule(
    "PI502",
    "no-update",
    Severity.ERROR,
    over=Trace,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI317",),
    because="What no optimizer holds is updated by none.",
    needs_values=True,
    skip=lambda trace: None if trace.unstepped else no_step(trace),
)
