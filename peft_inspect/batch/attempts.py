"""Running the forward where signature, config and documentation leave room for doubt, and changing the batch by how that failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from peft_inspect.batch import labels, states, text
from peft_inspect.batch.failure import Failure, Watched
from peft_inspect.batch.modalities.modality import text_width
from peft_inspect.batch.plan import Plan
from peft_inspect.outside import from_outside

_ATTEMPTS = 24
_NO_LABELS = "no labels"
_MADE_BY_THE_MODEL = re.compile(r"past|cache|position_ids|output|head_mask|label")
_LABELS = re.compile(r"label|^return_loss$|^(start|end)_positions$")
_LOSS = re.compile(r"loss|cross_entropy")
_ORDINARY = re.compile(
    r"^(decoder_|encoder_)?(input_ids|attention_mask|position_ids|inputs_embeds|head_mask|hidden_states|outputs)$|^cross_attn_head_mask$|"
    r"^(token_type_ids|labels|past_key_values|cache_\w+|use_cache|logits_to_keep|return_dict|output_\w+|start_positions|end_positions)$"
)


def needs_trial(plan: Plan) -> bool:
    """Whether the forward takes anything beyond text, reads several streams of it, has no head of its own, or is the user's own."""
    receiver = plan.receiver
    plain = "labels" in receiver.parameters and not isinstance(getattr(plan.config, "num_codebooks", None), int)
    streams = any("*" in "".join(shape) for shape in receiver.documented.values())
    return receiver.own or not plain or streams or not all(_ORDINARY.match(name) for name in receiver.parameters)


def attempt(plan: Plan) -> None:
    """Run the forward without gradients, and change the batch until it passes or nothing is left to change.

    A batch that never passes stays as it was first made, so that the run itself reports what is wrong with it.
    """
    first, notes = dict(plan.inputs), list(plan.notes)
    for _ in range(_ATTEMPTS):
        failure = _run(plan)
        if failure is None:
            return
        changed = any(change(plan, failure) for change in _CHANGES)
        del failure  # and with it the frames and tensors of the attempt
        if not changed:
            break
    if _run(plan) is not None:
        plan.inputs.clear()
        plan.inputs.update(first)
        plan.notes[:] = notes


def _run(plan: Plan) -> Failure | None:
    watched = Watched()
    try:
        with torch.no_grad(), watched:
            plan.receiver.called(**plan.receiver.spelled(plan.inputs))
    except Exception as error:  # whatever the model raises on a batch that does not fit
        if from_outside(error):
            raise
        return watched.failure(error)
    return None


def _count(plan: Plan, failure: Failure) -> bool:
    """As many placeholders as there are features, where they were guessed and the model had the features when it raised."""
    width = text_width(plan) or 0
    for index, run in enumerate(plan.placeholders):
        for name, value in () if run.counted else failure.values:
            if run.modality not in name or not value.is_floating_point() or value.shape[-1:] != (width,):
                continue
            features, rest = divmod(value.numel(), width * plan.size)
            if features and not rest and features != run.count:
                plan.placeholders[index] = replace(run, count=features, counted=True)
                _write_text(plan)
                return True
    return False


def _text_length(plan: Plan, failure: Failure) -> bool:
    """Text as long as what is added to it, where the model adds features token by token."""
    ids = plan.inputs.get("input_ids")
    if plan.placeholders or not isinstance(ids, torch.Tensor) or any("input_ids" in layout for layout in plan.alternatives):
        return False
    for apart in failure.apart:
        if failure.operation != "linear" and apart.from_left == 1 and apart.first == ids.shape[-1]:
            plan.text_length = apart.second
            _write_text(plan)
            return True
    return False


def _write_text(plan: Plan) -> None:
    """Make everything with one entry per token again."""
    for name in text.ONE_PER_TOKEN:
        plan.inputs.pop(name, None)
    plan.notes[:] = [note for note in plan.notes if not note.startswith(_NO_LABELS)]
    text.make(plan)
    labels.make(plan)
    text.make_decoder(plan)


def _what_is_absent(plan: Plan, failure: Failure) -> bool:
    """The nearest of what the failing lines looked for and did not find."""
    return any(states.give(plan, name) for name in plan.receiver.known(failure.absent) if not _MADE_BY_THE_MODEL.search(name))


def _exclusive(plan: Plan, failure: Failure) -> bool:
    """Of inputs that exclude each other, the later one goes; so does one that excludes what the model makes of the others."""
    present = plan.receiver.known(failure.present)
    given = [name for name in plan.inputs if name in present]
    others = [name for name, value in plan.inputs.items() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    if not given or (len(given) == 1 and not set(others) - set(given)):
        return False
    main = {getattr(module, "main_input_name", None) for module in plan.receiver.module.modules()}
    extra = next((name for name in reversed(given) if name not in main or len(given) == 1), given[-1])
    if _LABELS.search(extra):
        return _without_labels(plan, failure)
    if extra in plan.receiver.required:
        return False
    plan.drop(extra)
    plan.notes.append(f"{extra} not given: the model does not take it together with {' and '.join(sorted(set(failure.present) - {extra}))}")
    return True


def _other_labels(plan: Plan, failure: Failure) -> bool:
    """Labels of another meaning, for a forward of the user's own."""
    del failure
    if not plan.label_choices or "labels" not in plan.inputs:
        return False
    plan.inputs["labels"] = plan.label_choices.pop(0)
    return True


def _without_refused_labels(plan: Plan, failure: Failure) -> bool:
    """Without labels, where the loss or a condition on them raised."""
    refused = _LOSS.search(failure.operation) or any(_LABELS.search(name) for name in plan.receiver.known(failure.present))
    return bool(refused) and _without_labels(plan, failure)


def _without_labels(plan: Plan, failure: Failure) -> bool:
    """Without labels, where the loss cannot be computed from them."""
    given = [name for name in plan.inputs if _LABELS.search(name)]
    if not given or any(name in plan.receiver.required for name in given):
        return False
    for name in given:
        del plan.inputs[name]
    text.make_decoder(plan)
    plan.notes.append(f"{_NO_LABELS}: the model's own loss refused them ({failure.said}); the outputs are summed instead")
    return True


def _within_embeddings(plan: Plan, failure: Failure) -> bool:
    """Ids within the embeddings that read them: an encoder may have other ones than the decoder that the config speaks of."""
    if failure.operation != "embedding" or plan.placeholders:
        return False
    rows = failure.tensors[1].shape[0]
    beyond = [
        name for name, value in plan.inputs.items() if name.endswith("_ids") and isinstance(value, torch.Tensor) and value.max() >= rows
    ]
    for name in beyond:
        plan.inputs[name] = plan.inputs[name] % rows
    return bool(beyond)


def _width(plan: Plan, failure: Failure) -> bool:
    """Another last dimension for the input that does not fit what it meets; a part of it, where neighbours are put side by side first."""
    inputs = sorted(_floating(plan), key=lambda item: all(item[1] is not operand for operand in failure.tensors))
    for apart in failure.apart:
        for given, wanted in ((apart.first, apart.second), (apart.second, apart.first)) if apart.from_right == -1 else ():
            for name, value in inputs:
                neighbours, rest = divmod(given, value.shape[-1])
                attempt = (name, wanted, failure.operation)
                if neighbours and not rest and wanted % neighbours == 0 and attempt not in plan.widths:
                    plan.widths.add(attempt)
                    plan.inputs[name] = plan.floats(*value.shape[:-1], wanted // neighbours)
                    return True
    return False


def _another_layout(plan: Plan, failure: Failure) -> bool:
    """The next way to lay out an input."""
    del failure
    if not plan.alternatives:
        return False
    for name, value in plan.alternatives.pop(0).items():
        if value is None:
            plan.inputs.pop(name, None)
        elif name not in plan.dropped:
            plan.inputs[name] = value
    return True


def _without_modality(plan: Plan, failure: Failure) -> bool:
    """Without the inputs of another modality, where the text alone may run."""
    for argument, modality in reversed(plan.modalities.items()):
        if argument in plan.inputs and argument not in plan.receiver.required and "input_ids" in plan.inputs:
            companions = [name for name in plan.inputs if name not in text.ONE_PER_TOKEN and modality in name]
            for name in {argument, *companions}:
                plan.drop(name)
            plan.placeholders[:] = [run for run in plan.placeholders if run.modality != modality]
            _write_text(plan)
            plan.notes.append(f"{modality} not given: the forward refused every layout tried ({failure.said})")
            return True
    return False


def _floating(plan: Plan) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in list(plan.inputs.items()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            yield name, value


_CHANGES: tuple[Callable[[Plan, Failure], bool], ...] = (
    _count,
    _text_length,
    _exclusive,
    _what_is_absent,
    _other_labels,
    _without_refused_labels,
    _within_embeddings,
    _width,
    _another_layout,
    _without_labels,
    _without_modality,
)
