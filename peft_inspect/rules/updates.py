"""What the rules on the optimizer's step share."""

from __future__ import annotations

from collections.abc import Iterable

from peft_inspect.records import Structure, Trace, Update

NO_STEP = "needs an optimizer: give it (--optimizer), or have its step watched (peft-inspect run, peft_inspect.watch, a callback)"


def no_step(trace: Trace) -> str | None:
    """Why nothing can be said of an update; None where one was watched."""
    return NO_STEP if trace.update is None else None


def trained(trace: Trace) -> list[Update]:
    """The weights of adapters that a gradient other than zero had reached."""
    updates = () if trace.update is None else trace.update.updates
    return [update for update in updates if update.arrived and update.path not in trace.structure.averages]


def modules(trace: Trace, updates: Iterable[Update]) -> tuple[str, ...]:
    """The adapter layers of these weights, and the modules whose trained copy they are."""
    paths = {update.path for update in updates}
    layers = [layer.path for layer in trace.structure.adapter_layers if not paths.isdisjoint(layer.parameters)]
    copies = [path.partition(".modules_to_save.")[0] for path in paths if ".modules_to_save." in path]
    return tuple(dict.fromkeys((*layers, *sorted(copies))))


def begins_with_nothing(trace: Trace) -> bool:
    """Whether a schedule gives the optimizer a learning rate of 0 so far: a warm-up begins so, and the next step tells it from a fault."""
    held = [update for update in trained(trace) if update.held]
    return (
        trace.update is not None and bool(held) and all(update.lr == 0 for update in held) and any(update.scheduled_lr for update in held)
    )


def is_cleared(trace: Trace) -> bool:
    """Whether all these gradients were gone when the optimizer stepped."""
    updates = trained(trace)
    if trace.update is None or not updates:
        return False
    gone = all(update.asked == 0 for update in updates)
    return gone and (trace.update.cleared is not None or all(update.cleared for update in updates))


def is_rounded_away(trace: Trace) -> bool:
    """Whether nearly all values with a gradient are what they were, though the optimizer stepped with a learning rate."""
    held = [update for update in trained(trace) if update.held]
    asked, stayed = sum(update.asked for update in held), sum(update.stayed for update in held)
    return asked > 0 and stayed >= 0.9 * asked and all(update.lr != 0 for update in held) and any(update.spacing for update in held)


def is_for_another(structure: Structure) -> bool:
    """Whether the optimizer was made for an adapter that is not active: that one is to be activated, which PI207 says."""
    held = structure.optimizer or frozenset()
    of_active = {layer.active for layer in structure.adapter_layers if not held.isdisjoint(layer.parameters)}
    return of_active == {False}
