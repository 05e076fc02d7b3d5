"""What layers are for, by the names that architectures give them."""

from __future__ import annotations

from collections.abc import Iterable

_FUSED_QKV = ("qkv_proj", "qkv", "query_key_value", "c_attn", "Wqkv", "W_pack", "qkv_lin", "att_proj")
_ATTENTION_OUTPUT = ("o_proj", "out_proj", "o", "wo", "Wo", "out_lin", "linear_out", "attn_out")
_FUSED_GATE = ("gate_up_proj", "gate_up", "Wi", "w13", "ff_proj", "dense_h_to_4h", "input_linear")
_WORK = {  # what a layer does → the names it goes by, separate layers before fused ones
    "query": ("q_proj", "query", "q", "wq", "q_lin", "to_q", "query_proj", "linear_q", "q_b_proj", *_FUSED_QKV),
    "key": ("k_proj", "key", "k", "wk", "k_lin", "to_k", "key_proj", "linear_k", "kv_b_proj", *_FUSED_QKV),
    "value": ("v_proj", "value", "v", "wv", "v_lin", "to_v", "value_proj", "linear_v", "kv_b_proj", *_FUSED_QKV),
    "attention output": (*_ATTENTION_OUTPUT, "attention.output.dense", "dense", "c_proj"),
    "gate": ("gate_proj", "w1", "wi_0", "wi", *_FUSED_GATE),
    "up": ("up_proj", "w3", "wi_1", "fc1", "c_fc", "wi", "lin1", "linear1", "intermediate.dense", *_FUSED_GATE),
    "down": ("down_proj", "w2", "fc2", "lin2", "linear2", "wo", "Wo", "output.dense", "dense_4h_to_h", "c_proj", "output_linear", "ff_out"),
    "embedding": ("embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in", "shared", "embedding"),
    "projector": ("multi_modal_projector", "mm_projector", "connector", "aligner", "merger", "embed_vision"),
    "head": ("lm_head", "embed_out", "output_projection", "lm_output", "output"),
}


def names_for(work: str) -> tuple[str, ...]:
    """The names that architectures give to the layer for a work, the most common one first."""
    return _WORK[work]


def other_work(name: str, other: str) -> bool:
    """Whether two names are known to stand for different layers, however alike they are spelt."""
    works, others = ({work for work, names in _WORK.items() if each in names} for each in (name, other))
    return bool(works) and bool(others) and works.isdisjoint(others)


def same_work(entry: str, known: Iterable[str]) -> list[str]:
    """Existing names for the work that the entry's name stands for, all parts of it where one layer did what several do here.

    Of each part the most common naming only: that of the layers, and that of the experts, which may differ.

    Args:
        entry: a name or dotted path as in target_modules.
        known: names of layers that exist, or endings of their paths.
    """
    ending = entry.rpartition(".")[2]
    every = list(known)
    experts = [name for name in every if f".{name}".rpartition(".")[0].endswith(".experts")]
    layers = [name for name in every if name not in experts]
    found = (_first(names, ending, sort) for names in _WORK.values() if ending in names for sort in (layers, experts))
    return list(dict.fromkeys(name for hits in found for name in hits))


def ending_of(path: str, known: Iterable[str]) -> str | None:
    """The longest part of a dotted path, cut from the left, with which any of the `known` paths ends; at least two names of it."""
    every = tuple(known)
    parts = path.split(".")
    ends = (".".join(parts[at:]) for at in range(1, len(parts) - 1))
    return next((end for end in ends if any(name == end or name.endswith(f".{end}") for name in every)), None)


def _first(names: Iterable[str], entry: str, known: Iterable[str]) -> list[str]:
    """The known layers of the first of these names that there are any of."""
    found = ([name for name in known if name.endswith(f".{other}") or name == other] for other in names if other != entry)
    return next((hits for hits in found if hits), [])
