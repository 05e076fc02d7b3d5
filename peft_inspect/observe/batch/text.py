"""Token ids with the placeholders of the other modalities in their place, their masks and types; decoder ids."""

from __future__ import annotations

import torch

from peft_inspect.observe.batch import ids
from peft_inspect.observe.batch.plan import TEXT_LENGTH, Plan

_TYPE = {"text": 0, "image": 1, "video": 2, "audio": 3}


def make(plan: Plan) -> None:
    """Give `input_ids` with everything that has one entry per token, and the decoder's ids where labels do not make them."""
    if plan.wants("input_ids"):
        row, types = _row(plan)
        plan.give("input_ids", plan.integers([row] * plan.size))
        kinds = plan.integers([types] * plan.size)
        plan.give("mm_token_type_ids", kinds)
        plan.give("attention_mask", plan.ones(plan.size, len(row)))
        if plan.placeholders:
            plan.give("token_type_ids", (kinds > 0).long())
    elif plan.wants("attention_mask"):
        _mask_of_main_input(plan)
    if plan.wants("decoder_input_ids") and not _labels_make_decoder_ids(plan):
        plan.give("decoder_input_ids", ids.text(plan, TEXT_LENGTH // 2, vocab=ids.vocabulary(plan, decoder=True)))


def is_encoder_decoder(plan: Plan) -> bool:
    """Whether a decoder reads shifted labels or its own ids."""
    return bool(getattr(plan.config, "is_encoder_decoder", False)) or "decoder_input_ids" in plan.target.parameters


def _row(plan: Plan) -> tuple[list[int], list[int]]:
    """One sample: words, then each run of placeholders with words after it; and the modality of each token."""
    piece = TEXT_LENGTH // (1 + len(plan.placeholders))
    words = ids.ordinary(plan, TEXT_LENGTH)
    row, types = words[:piece], [0] * piece
    for index, run in enumerate(plan.placeholders, start=1):
        tokens = [*_single(run.start), *[run.token] * run.count, *_single(run.end)]
        after = words[index * piece : (index + 1) * piece]
        row += [*tokens, *after]
        types += [_TYPE[run.modality] if token == run.token else 0 for token in tokens] + [0] * len(after)
    eos = getattr(plan.config, "eos_token_id", None)
    if is_encoder_decoder(plan) and isinstance(eos, int) and 0 <= eos < ids.vocabulary(plan):
        row[-1] = eos
    return row, types


def _single(token: int | None) -> list[int]:
    return [] if token is None else [token]


def _mask_of_main_input(plan: Plan) -> None:
    """A mask over samples or frames, where the model reads sound and no text."""
    for name in ("input_values", "input_features"):
        value = plan.inputs.get(name)
        if isinstance(value, torch.Tensor) and value.dim() in (2, 3):
            length = value.shape[-1] if value.dim() == 2 or value.shape[-1] > value.shape[1] else value.shape[1]
            plan.give("attention_mask", plan.ones(plan.size, length))


def _labels_make_decoder_ids(plan: Plan) -> bool:
    start = getattr(plan.config, "decoder_start_token_id", None)
    return "labels" in plan.target.parameters and start is not None and "Classification" not in type(plan.target.module).__name__
