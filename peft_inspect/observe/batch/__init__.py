"""A batch for every modality: from the user, or made from the model's own signature and config."""

from __future__ import annotations

from typing import Any

from peft_inspect.observe.batch import labels, rest, text, towers
from peft_inspect.observe.batch.describe import describe
from peft_inspect.observe.batch.plan import Plan
from peft_inspect.observe.batch.target import find_target
from peft_inspect.records import BatchInfo, InspectionError, Subject

__all__ = ["make_batch"]

_MAKERS = (towers.make, text.make, rest.make, labels.make)


def make_batch(subject: Subject) -> tuple[dict[str, Any], BatchInfo]:
    """The keyword inputs to run the model with, and their description.

    Raises:
        InspectionError: a required input cannot be made from signature and config.
    """
    target = find_target(subject.model)
    if subject.batch is not None:
        return dict(subject.batch), describe(subject.batch, target.parameters, "user")
    plan = Plan(target)
    for make in _MAKERS:
        make(plan)
    if missing := rest.missing(plan):
        raise InspectionError(
            f"no batch could be made: {type(target.module).__name__}.forward requires {', '.join(missing)}. "
            "Pass --batch FILE or file.py:make_batch, or batch={...} in Python."
        )
    return plan.inputs, describe(plan.inputs, target.parameters, "signature and config", plan.notes)
