"""The names layers go by: what exists in a model that is spelt alike, or does the same work under another name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from torch import nn

from peft_inspect.observe.kinds import CONVOLUTIONS, LINEARS, expert_weights, holds_experts

if TYPE_CHECKING:
    from peft_inspect.observe.bare import BareModel

_MOST = 3
_SPELLING = 0.8  # of difflib: a slip of the pen, not another word
_FUSED_QKV = ("qkv_proj", "qkv", "query_key_value", "c_attn", "Wqkv", "W_pack", "qkv_lin", "att_proj")
_FUSED_GATE = ("gate_up_proj", "gate_up", "Wi", "w13", "ff_proj", "dense_h_to_4h", "input_linear")
_WORK = {  # what a layer does → the names it goes by, separate layers before fused ones
    "query": ("q_proj", "query", "q", "wq", "q_lin", "to_q", "query_proj", "linear_q", "q_b_proj", *_FUSED_QKV),
    "key": ("k_proj", "key", "k", "wk", "k_lin", "to_k", "key_proj", "linear_k", "kv_b_proj", *_FUSED_QKV),
    "value": ("v_proj", "value", "v", "wv", "v_lin", "to_v", "value_proj", "linear_v", "kv_b_proj", *_FUSED_QKV),
    "queries, keys and values": _FUSED_QKV,
    "attention output": ("o_proj", "out_proj", "wo", "o", "out_lin", "linear_out", "attn_out", "attention.output.dense", "dense", "c_proj"),
    "gate": ("gate_proj", "w1", "wi_0", *_FUSED_GATE),
    "up": ("up_proj", "w3", "wi_1", "fc1", "c_fc", "wi", "lin1", "linear1", "intermediate.dense", *_FUSED_GATE),
    "gate and up": (*_FUSED_GATE, "fc1", "c_fc"),
    "down": ("down_proj", "w2", "fc2", "lin2", "linear2", "wo", "output.dense", "dense_4h_to_h", "c_proj", "output_linear", "ff_out"),
}


def nearest(entry: str, bare: BareModel, *, containers: bool = False) -> tuple[str, ...]:
    """Up to three names that exist in the model: what does the same work first, then what is spelt alike.

    Args:
        entry: an entry of a PEFT config field that reached nothing.
        bare: the model.
        containers: whether any module counts, not only layers that can carry an adapter.
    """
    known = dict.fromkeys(_modules(bare) if containers else _adaptable(bare))
    ending = entry.rpartition(".")[2]
    endings = dict.fromkeys(name.rpartition(".")[2] for name in known)
    alike = [like for like in difflib.get_close_matches(ending, endings, n=_MOST, cutoff=_SPELLING) if not _other_work(ending, like)]
    spelt = [name for like in alike for name in known if name.rpartition(".")[2] == like]
    exact = [name for name in known if name.rpartition(".")[2] == ending]
    return tuple(dict.fromkeys((*exact, *_same_work(entry, known), *spelt)))[:_MOST]


def _other_work(name: str, other: str) -> bool:
    """Whether two names are known to stand for different layers, however alike they are spelt."""
    works, others = ({work for work, names in _WORK.items() if each in names} for each in (name, other))
    return bool(works) and bool(others) and works.isdisjoint(others)


def _same_work(entry: str, known: Iterable[str]) -> list[str]:
    """Existing names for the work that the entry's name stands for: those of the most common naming only."""
    ending = entry.rpartition(".")[2]
    for names in _WORK.values():
        if ending in names:
            found = [[name for name in known if name.endswith(f".{other}") or name == other] for other in names if other != ending]
            if first := next((hits for hits in found if hits), None):
                return first
    return []


def _adaptable(bare: BareModel) -> Iterator[str]:
    """The last part of every layer name; of expert parameters, the last two."""
    for name, module in bare.modules.items():
        if isinstance(module, (*LINEARS, nn.Embedding, nn.MultiheadAttention, *CONVOLUTIONS)):
            parts = name.split(".")
            yield parts[-1]
            if len(parts) > 2 and not parts[-2].isdecimal():
                yield ".".join(parts[-2:])
        elif holds_experts(module):
            yield from (f"{name.rpartition('.')[2]}.{parameter}" for parameter in expert_weights(module))


def _modules(bare: BareModel) -> Iterator[str]:
    return (name.rpartition(".")[2] for name in bare.modules if name and not name.rpartition(".")[2].isdecimal())
