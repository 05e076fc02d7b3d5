"""Token ids with the placeholders of the other modalities in their place, their masks and types; decoder ids."""

from __future__ import annotations

import math
import re

import torch

from peft_inspect.batch import ids
from peft_inspect.batch.plan import TEXT_LENGTH, Plan
from peft_inspect.batch.rest import give_documented

_STREAMS = re.compile(r"\*|num_codebooks$")
_TYPE = {"text": 0, "image": 1, "video": 2, "audio": 3}


def make(plan: Plan) -> None:
    """Give `input_ids` with everything that has one entry per token, and the decoder's ids where labels do not make them."""
    if _STREAMS.search(" ".join(plan.target.documented.get("input_ids", ()))):  # side by side, or one below the other
        give_documented(plan, "input_ids")
        steps = plan.inputs["input_ids"]
        if steps.dim() == 3:
            plan.give("attention_mask", plan.ones(*steps.shape[:2]))
    if plan.wants("input_ids"):
        row, types = _row(plan)
        books = getattr(plan.config, "num_codebooks", None)
        if isinstance(books, int):
            plan.alternatives += [
                {"input_ids": plan.integers([row] * plan.size * books)},
                {"input_ids": plan.integers([[[t] * books for t in row]] * plan.size)},
            ]
        plan.give("input_ids", plan.integers([row] * plan.size))
        kinds = plan.integers([types] * plan.size)
        plan.give("mm_token_type_ids", kinds)
        places = kinds == _TYPE["image"]
        places[:, 1 : 1 + plan.positions] = True
        plan.give("image_embeds_position_mask", places.long())
        pixels = plan.inputs.get("pixel_values")
        if plan.wants("image_attention_mask") and isinstance(pixels, torch.Tensor) and pixels.dim() == 5:
            plan.give("image_attention_mask", plan.ones(plan.size, len(row), pixels.shape[1]))
        if plan.wants("global_attention_mask"):
            plan.give("global_attention_mask", torch.nn.functional.one_hot(plan.zeros(plan.size), len(row)))
        if plan.wants("bbox"):
            boxes = plan.integers([[[1, 1, 2, 2]] * len(row)] * plan.size)
            plan.give("bbox", boxes if "Long" in plan.target.documented_type.get("bbox", "Long") else boxes.to(plan.dtype))
        plan.give("attention_mask", plan.ones(plan.size, len(row)))
        if plan.placeholders:
            plan.give("token_type_ids", (kinds > 0).long())
    elif plan.wants("attention_mask"):
        _mask_of_main_input(plan)


def make_decoder(plan: Plan) -> None:
    """Give `decoder_input_ids` where no labels make them."""
    start = getattr(plan.config, "decoder_start_token_id", None)
    classifies = "Classification" in type(plan.target.module).__name__
    if plan.wants("decoder_input_ids") and ("labels" not in plan.inputs or start is None or classifies):
        if "*" in "".join(plan.target.documented.get("decoder_input_ids", ())):  # several streams side by side
            give_documented(plan, "decoder_input_ids")
            flat = plan.inputs["decoder_input_ids"]
            plan.alternatives.append({"decoder_input_ids": flat.reshape(plan.size, -1, flat.shape[-1]).transpose(1, 2).contiguous()})
        labels = plan.inputs.get("labels")
        length = labels.shape[1] if isinstance(labels, torch.Tensor) and labels.dim() == 2 else TEXT_LENGTH // 2
        if classifies and "input_ids" in plan.inputs:  # the decoder reads the same text, and is pooled where that ends
            length = plan.inputs["input_ids"].shape[1]
        plan.give("decoder_input_ids", ids.text(plan, length, vocab=ids.vocabulary(plan, decoder=True)))


def is_encoder_decoder(plan: Plan) -> bool:
    """Whether a decoder reads shifted labels or its own ids."""
    return bool(getattr(plan.config, "is_encoder_decoder", False)) or "decoder_input_ids" in plan.target.parameters


def _row(plan: Plan) -> tuple[list[int], list[int]]:
    """One sample: words, then each run of placeholders with words after it; and the modality of each token."""
    axes = getattr(plan.config, "axial_pos_shape", None)  # position embeddings of one text length only
    length = math.prod(axes) if axes else plan.text_length
    piece = length // (1 + len(plan.placeholders))
    words = ids.ordinary(plan, length)
    row, types = words[:piece], [0] * piece
    for index, run in enumerate(plan.placeholders, start=1):
        tokens = [*_single(plan, run.start), *[run.token] * run.count, *_single(plan, run.end)]
        after = words[index * piece : (index + 1) * piece]
        row += [*tokens, *after]
        types += [_TYPE[run.modality] if token == run.token else 0 for token in tokens] + [0] * len(after)
    eos = getattr(plan.config, "eos_token_id", None)
    if is_encoder_decoder(plan) and isinstance(eos, int) and 0 <= eos < ids.vocabulary(plan):
        row[-1] = eos
    return row, types


def _single(plan: Plan, token: int | None) -> list[int]:
    """A token around placeholders, where the vocabulary has it."""
    return [] if token is None or token >= (ids.stated_vocabulary(plan) or token + 1) else [token]


def _mask_of_main_input(plan: Plan) -> None:
    """A mask over samples or frames, where the model reads sound and no text; encoders alone may want it in other forms."""
    waveform, frames = plan.inputs.get("input_values"), plan.inputs.get("input_features")
    if isinstance(waveform, torch.Tensor) and waveform.dim() == 2:
        plan.give("attention_mask", plan.ones(plan.size, waveform.shape[-1]))
    elif isinstance(frames, torch.Tensor) and frames.dim() == 3 and ("labels" in plan.target.parameters or plan.needs("attention_mask")):
        plan.give("attention_mask", plan.ones(plan.size, max(frames.shape[1:])))
