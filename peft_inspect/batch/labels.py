"""Labels of the shape and range that the model's own loss wants; left out where that is not known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers.utils import is_scipy_available

from peft_inspect.batch.modalities import placeholder_tokens
from peft_inspect.batch.plan import TEXT_LENGTH, Plan
from peft_inspect.batch.text import ordinary_text, vocabulary

IGNORE = -100


def make(plan: Plan) -> None:
    """Give the labels of the task that the class is named after."""
    if plan.wants("start_positions", "end_positions"):
        plan.give("start_positions", plan.ones(plan.size))
        plan.give("end_positions", plan.ones(plan.size) * 2)
    if plan.wants("return_loss"):
        plan.give("return_loss", True)
    plan.give("next_sentence_label", plan.zeros(plan.size))
    plan.give("sentence_order_label", plan.zeros(plan.size))
    if plan.wants("labels") and plan.receiver.own:
        plan.label_choices = _choices(plan)
        plan.give("labels", plan.label_choices.pop(0))
    elif plan.wants("labels"):
        make_labels = _maker(plan)
        labels = make_labels(plan) if make_labels else None
        if labels is not None:
            plan.give("labels", labels)


def _choices(plan: Plan) -> list[torch.Tensor]:
    """What labels of a forward of the user's own may be: a class, a value, tokens; a trial tells."""
    choices = [plan.zeros(plan.size), torch.ones(plan.size, dtype=plan.dtype, device=plan.device)]
    if "input_ids" in plan.inputs:
        choices += [_of_text(plan), plan.zeros(*plan.inputs["input_ids"].shape)]
    choices += [torch.ones(plan.size, 1, dtype=plan.dtype, device=plan.device), ordinary_text(plan, TEXT_LENGTH // 2)]
    return choices


def _maker(plan: Plan) -> Callable[[Plan], object] | None:
    """By the task that the class is named after, else by the shape that its docstring gives the labels."""
    name = type(plan.receiver.module).__name__
    if "codebooks" in "".join(plan.receiver.documented.get("labels", ())):
        return None  # one label per stream of codes; how streams are delayed is the processor's knowledge
    for task, maker in _TASKS:
        if task in name:
            return maker if maker not in (_boxes, _boxes_with_masks) or is_scipy_available() else None
    shape = plan.receiver.documented.get("labels", ())
    if len(shape) == 2 and "length" in shape[1]:
        return _tokens
    return _class if len(shape) == 1 and "batch" in shape[0] else None


def _tokens(plan: Plan) -> torch.Tensor:
    """Every ordinary token is a label; a decoder that reads no text has labels of its own."""
    if "input_ids" not in plan.inputs:
        return ordinary_text(plan, TEXT_LENGTH, vocab=vocabulary(plan, decoder=True))
    labels = _of_text(plan)
    vocab = vocabulary(plan, decoder=True)
    return torch.where(labels < vocab, labels, labels % vocab)


def _masked(plan: Plan) -> torch.Tensor:
    """Other tokens than those that go in: a head tied to the embeddings knows these by heart, and has nothing to learn."""
    return _tokens(plan).roll(1, dims=-1)


def _of_text(plan: Plan) -> torch.Tensor:
    """The input ids, with placeholders of other modalities ignored."""
    labels: torch.Tensor = plan.inputs["input_ids"].clone()
    for token in placeholder_tokens(plan):
        labels[labels == token] = IGNORE
    return labels


def _classes(plan: Plan) -> int:
    return int(getattr(plan.config, "num_labels", 2) or 2)


def _class(plan: Plan) -> torch.Tensor:
    """One label per sample, as `problem_type` says."""
    count, problem = _classes(plan), getattr(plan.config, "problem_type", None)
    if problem == "multi_label_classification":
        return torch.ones(plan.size, count, dtype=plan.dtype, device=plan.device)
    if problem == "regression" or (problem is None and count == 1):
        shape = (plan.size,) if count == 1 else (plan.size, count)
        return torch.ones(shape, dtype=plan.dtype, device=plan.device)
    return plan.integers([index % count for index in range(plan.size)])


def _class_per_token(plan: Plan) -> torch.Tensor | None:
    if "input_ids" not in plan.inputs:
        return None
    labels: torch.Tensor = plan.inputs["input_ids"] % _classes(plan)
    return labels


def _index(plan: Plan) -> torch.Tensor:
    return plan.zeros(plan.size)


def _transcript(plan: Plan) -> torch.Tensor:
    return ordinary_text(plan, 4)


def _class_per_pixel(plan: Plan) -> torch.Tensor:
    return plan.zeros(plan.size, *plan.image_size)


def _boxes(plan: Plan) -> list[dict[str, torch.Tensor]]:
    """One box per image, in relative centre coordinates."""
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4]], dtype=torch.float32, device=plan.device)
    return [{"class_labels": plan.zeros(1), "boxes": box} for _ in range(plan.size)]


def _boxes_with_masks(plan: Plan) -> list[dict[str, torch.Tensor]]:
    masks = torch.ones(1, *plan.image_size, device=plan.device)
    return [{**target, "masks": masks} for target in _boxes(plan)]


_TASKS: tuple[tuple[str, Callable[[Plan], object]], ...] = (
    ("ForRNNT", lambda _: None),
    ("ForTDT", lambda _: None),
    ("ForCausalLM", _tokens),
    ("ForConditionalGeneration", _tokens),
    ("ForMaskedLM", _masked),
    ("LMHead", _tokens),
    ("ForSpeechSeq2Seq", _tokens),
    ("ForTokenClassification", _class_per_token),
    ("SequenceClassification", _class),
    ("ForImageClassification", _class),
    ("ForVideoClassification", _class),
    ("ForAudioClassification", _class),
    ("ForMultipleChoice", _index),
    ("ForNextSentencePrediction", _index),
    ("ForCTC", _transcript),
    ("ForSemanticSegmentation", _class_per_pixel),
    ("ForObjectDetection", _boxes),
    ("ForSegmentation", _boxes_with_masks),
)
