"""Token ids with the placeholders of the other modalities in their place, their masks and types; decoder ids."""

from __future__ import annotations

import math
import re

import torch
from transformers import PretrainedConfig

from peft_inspect.batch.documented import documented, give_documented
from peft_inspect.batch.fields import TEXT, find
from peft_inspect.batch.plan import TEXT_LENGTH, Plan

ONE_PER_TOKEN = ("input_ids", "mm_token_type_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "labels")
_STREAMS = re.compile(r"\*|num_codebooks$")
_SECOND_TEXT = re.compile(r"^(qformer|protein|prompt|query|question)_input_ids$")  # read by a tower of its own
_TYPE = {"text": 0, "image": 1, "video": 2, "audio": 3}
_UNICODE_LETTERS = 97  # models without a vocabulary read code points


def make_second(plan: Plan) -> None:
    """Give the texts that towers of their own read: the features of an image may depend on them."""
    for name in plan.receiver.parameters:
        if second := _SECOND_TEXT.match(name):
            vocab = find(plan.config, "vocab_size", within=re.compile(second[1]))
            plan.give(name, ordinary_text(plan, TEXT_LENGTH // 2, vocab=vocab))
            plan.give(f"{second[1]}_attention_mask", plan.ones(plan.size, TEXT_LENGTH // 2))


def make(plan: Plan) -> None:
    """Give `input_ids` with everything that has one entry per token."""
    if _STREAMS.search(" ".join(plan.receiver.documented.get("input_ids", ()))):  # side by side, or one below the other
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
                {"input_ids": plan.integers([row] * plan.size)},
            ]
        plan.give("input_ids", plan.integers([row] * plan.size))
        _companions(plan, len(row), plan.integers([types] * plan.size))
    elif plan.wants("attention_mask"):
        _mask_of_main_input(plan)


def _companions(plan: Plan, length: int, kinds: torch.Tensor) -> None:
    """What has one entry per token; `kinds` are the modalities of the tokens, int64[batch, length]."""
    plan.give("mm_token_type_ids", kinds)
    places = kinds == _TYPE["image"]
    places[:, 1 : 1 + plan.positions] = True
    plan.give("image_embeds_position_mask", places.long())
    pixels = plan.inputs.get("pixel_values")
    if isinstance(pixels, torch.Tensor) and pixels.dim() == 5:
        plan.give("image_attention_mask", plan.ones(plan.size, length, pixels.shape[1]))
    if plan.wants("global_attention_mask"):
        plan.give("global_attention_mask", torch.nn.functional.one_hot(plan.zeros(plan.size), length))
    boxes = plan.integers([[[1, 1, 2, 2]] * length] * plan.size)
    plan.give("bbox", boxes if "Long" in plan.receiver.documented_type.get("bbox", "Long") else boxes.to(plan.dtype))
    plan.give("attention_mask", plan.ones(plan.size, length))
    if plan.placeholders:
        plan.give("token_type_ids", (kinds > 0).long())


def make_decoder(plan: Plan) -> None:
    """Give `decoder_input_ids` where no labels make them."""
    start = getattr(plan.config, "decoder_start_token_id", None)
    classifies = "Classification" in type(plan.receiver.module).__name__
    if not plan.wants("decoder_input_ids") or ("labels" in plan.inputs and start is not None and not classifies):
        return
    if "*" in "".join(plan.receiver.documented.get("decoder_input_ids", ())):  # several streams side by side
        flat = documented(plan, "decoder_input_ids")
        if flat is not None:
            plan.give("decoder_input_ids", flat)
            split = flat.reshape(plan.size, -1, flat.shape[-1]).transpose(1, 2).contiguous()
            plan.alternatives.append({"decoder_input_ids": split})
    labels = plan.inputs.get("labels")
    length = labels.shape[1] if isinstance(labels, torch.Tensor) and labels.dim() == 2 else TEXT_LENGTH // 2
    if classifies and "input_ids" in plan.inputs:  # the decoder reads the same text, and is pooled where that ends
        length = plan.inputs["input_ids"].shape[1]
    plan.give("decoder_input_ids", ordinary_text(plan, length, vocab=vocabulary(plan, decoder=True)))


def vocabulary(plan: Plan, *, decoder: bool = False) -> int:
    """Number of ids that both the config and the embedding accept."""
    return _stated_vocabulary(plan, decoder=decoder) or 2 * _UNICODE_LETTERS


def _stated_vocabulary(plan: Plan, *, decoder: bool = False) -> int | None:
    """The same where the config says so."""
    config = plan.config
    if decoder and isinstance(getattr(config, "decoder", None), PretrainedConfig):
        config = config.decoder
    size = find(config, "vocab_size", "text_vocab_size", "n_vocab", within=TEXT)
    if isinstance(size, (list, tuple)):
        size = min(size)
    return size if isinstance(size, int) and size > 0 else None


def ordinary_text(plan: Plan, count: int, *, vocab: int | None = None) -> torch.Tensor:
    """Ids that are no special tokens, the same in every sample: int64[batch, count]."""
    row = _ordinary(plan, count, vocab or vocabulary(plan))
    return plan.integers([row] * plan.size)


def _ordinary(plan: Plan, count: int, vocab: int) -> list[int]:
    """`count` ids spread over the vocabulary, none of them special; the same ones every time.

    They rise, because text towers without an end token in their config pool at the highest id: at the end, which sees all.
    """
    special = set(plan.special.values())
    usable = [token for token in range(min(4, vocab // 2), min(vocab, 512 + count)) if token not in special] or list(range(vocab))
    step = 37  # prime: neighbours differ without repeating soon
    return sorted(usable[index * step % len(usable)] for index in range(count))


def _row(plan: Plan) -> tuple[list[int], list[int]]:
    """One sample: words, then each run of placeholders with words after it; and the modality of each token."""
    axes = getattr(plan.config, "axial_pos_shape", None)  # position embeddings of one text length only
    length = math.prod(axes) if axes else plan.text_length
    piece = length // (1 + len(plan.placeholders))
    words = _ordinary(plan, length, vocabulary(plan))
    row, types = words[:piece], [0] * piece
    for index, run in enumerate(plan.placeholders, start=1):
        tokens = [*_single(plan, run.start), *[run.token] * run.count, *_single(plan, run.end)]
        after = words[index * piece : (index + 1) * piece]
        row += [*tokens, *after]
        types += [_TYPE.get(run.modality, 0) if token == run.token else 0 for token in tokens] + [0] * len(after)
    eos = getattr(plan.config, "eos_token_id", None)
    decodes = bool(getattr(plan.config, "is_encoder_decoder", False)) or "decoder_input_ids" in plan.receiver.parameters
    if decodes and isinstance(eos, int) and 0 <= eos < vocabulary(plan):
        row[-1] = eos
    return row, types


def _single(plan: Plan, token: int | None) -> list[int]:
    """A token around placeholders, where the vocabulary has it."""
    return [] if token is None or token >= (_stated_vocabulary(plan) or token + 1) else [token]


def _mask_of_main_input(plan: Plan) -> None:
    """A mask over samples or frames, where the model reads sound and no text; encoders alone may want it in other forms."""
    waveform, frames = plan.inputs.get("input_values"), plan.inputs.get("input_features")
    if isinstance(waveform, torch.Tensor) and waveform.dim() == 2:
        plan.give("attention_mask", plan.ones(plan.size, waveform.shape[-1]))
    elif isinstance(frames, torch.Tensor) and frames.dim() == 3 and ("labels" in plan.receiver.parameters or plan.needs("attention_mask")):
        plan.give("attention_mask", plan.ones(plan.size, max(frames.shape[1:])))
