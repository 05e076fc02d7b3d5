"""Token ids that mean ordinary text: inside the vocabulary, and no special or placeholder token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import PretrainedConfig

from peft_inspect.batch.fields import TEXT, find

if TYPE_CHECKING:
    import torch

    from peft_inspect.batch.plan import Plan

_UNICODE_LETTERS = 97  # models without a vocabulary read code points


def vocabulary(plan: Plan, *, decoder: bool = False) -> int:
    """Number of ids that both the config and the embedding accept."""
    return stated_vocabulary(plan, decoder=decoder) or 2 * _UNICODE_LETTERS


def stated_vocabulary(plan: Plan, *, decoder: bool = False) -> int | None:
    """The same where the config says so."""
    config = plan.config
    if decoder and isinstance(getattr(config, "decoder", None), PretrainedConfig):
        config = config.decoder
    size = find(config, "vocab_size", "text_vocab_size", "n_vocab", within=TEXT)
    if isinstance(size, (list, tuple)):
        size = min(size)
    return size if isinstance(size, int) and size > 0 else None


def ordinary(plan: Plan, count: int, *, vocab: int | None = None) -> list[int]:
    """`count` ids spread over the vocabulary, none of them special; the same ones every time.

    They rise, because text towers without an end token in their config pool at the highest id: at the end, which sees all.
    """
    vocab = vocab or vocabulary(plan)
    special = set(plan.special.values())
    usable = [token for token in range(min(4, vocab // 2), min(vocab, 512 + count)) if token not in special] or list(range(vocab))
    step = 37  # prime: neighbours differ without repeating soon
    return sorted(usable[index * step % len(usable)] for index in range(count))


def text(plan: Plan, count: int, *, vocab: int | None = None) -> torch.Tensor:
    """Ordinary ids, int64[batch, count]."""
    row = ordinary(plan, count, vocab=vocab)
    return plan.integers([row] * plan.size)
