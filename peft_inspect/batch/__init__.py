"""A batch for every modality: from the user, or made from the model's own signature, config and documentation."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from peft_inspect.batch import content, families, labels, modalities, states, text
from peft_inspect.batch.attempts import attempt, needs_trial
from peft_inspect.batch.describe import describe, exercised
from peft_inspect.batch.plan import Plan
from peft_inspect.batch.receiver import find_receiver
from peft_inspect.records import BatchInfo, InspectionError, Subject
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.run.weightless import running

__all__ = ["make_batch"]

_MAKERS = (
    families.give,
    text.make_second,
    modalities.give_all,
    text.make,
    states.make_cross,
    states.make,
    labels.make,
    text.make_decoder,
)


def make_batch(subject: Subject) -> tuple[dict[str, Any], BatchInfo]:
    """The keyword inputs to run the model with, and their description.

    Raises:
        InspectionError: a required input cannot be made from signature, config and documentation.
    """
    receiver = find_receiver(subject.model)
    if subject.batch is not None:
        return dict(subject.batch), describe(subject.batch, receiver.parameters, subject.batch_by)
    plan = Plan(receiver)
    made_by = "the user's content through the folder's processor" if subject.content else "signature and config"
    if content.make(plan, subject):
        text.make_decoder(plan)
        labels.make(plan)
    elif not needs_trial(plan):
        _make(plan)
    else:
        with undisturbed(subject.model), running() if subject.weights == "none" else nullcontext():
            _make(plan)
            attempt(plan)
    plan.notes.insert(0, exercised(plan))
    made = receiver.spelled(plan.inputs)
    return made, describe(made, receiver.spelled(receiver.parameters), made_by, plan.notes)


def _make(plan: Plan) -> None:
    for make in _MAKERS:
        make(plan)
    if missing := states.missing(plan):
        names = ", ".join(plan.receiver.spelled(dict.fromkeys(missing)))
        raise InspectionError(
            f"no batch could be made: {type(plan.receiver.module).__name__}.forward requires {names}. "
            "Pass --batch FILE or file.py:make_batch, or batch={...} in Python."
        )
