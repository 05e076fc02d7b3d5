"""The names layers go by: what exists in a model that is spelt alike, or does the same work under another name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

from peft_inspect.layer_names import ending_of, other_work, same_work
from peft_inspect.structure.kinds import CONVOLUTIONS, LINEARS, expert_weights, holds_experts

if TYPE_CHECKING:
    from peft_inspect.structure.bare import BareModel

_LAYERS = (*LINEARS, nn.Embedding, nn.MultiheadAttention, *CONVOLUTIONS)
_MOST = 3
_SPELLING = 0.8  # of difflib: a slip of the pen, not another word


def similar_names(entry: str, bare: BareModel, *, containers: bool = False) -> tuple[str, ...]:
    """Up to three names that exist in the model: what does the same work first, then what is spelt alike.

    A path that only begins in another way than the model's has its end instead.

    Args:
        entry: an entry of a PEFT config field that reached nothing.
        bare: the model.
        containers: whether any module counts, not only layers that can carry an adapter.
    """
    if (end := ending_of(entry, (name for name, module in bare.modules.items() if containers or isinstance(module, _LAYERS)))) is not None:
        return (end,)
    known = dict.fromkeys(_modules(bare) if containers else _adaptable(bare))
    ending = entry.rpartition(".")[2]
    endings = dict.fromkeys(name.rpartition(".")[2] for name in known)
    alike = [like for like in difflib.get_close_matches(ending, endings, n=_MOST, cutoff=_SPELLING) if not other_work(ending, like)]
    spelt = [name for like in alike for name in known if name.rpartition(".")[2] == like]
    exact = [name for name in known if name.rpartition(".")[2] == ending]
    return tuple(dict.fromkeys((*exact, *same_work(entry, known), *spelt)))[:_MOST]


def _adaptable(bare: BareModel) -> Iterator[str]:
    """The last part of every layer name, and the last two where one alone names layers of several parents; of expert parameters, two."""
    parents: dict[str, dict[str, None]] = {}
    for name, module in bare.modules.items():
        if isinstance(module, _LAYERS):
            above, _, last = name.rpartition(".")
            parents.setdefault(last, {})[above.rpartition(".")[2]] = None
    for last, of_last in parents.items():
        yield last
        if len(of_last) > 1:
            yield from (f"{parent}.{last}" for parent in of_last if parent and not parent.isdecimal())
    for name, module in bare.modules.items():
        if holds_experts(module):
            yield from (f"{name.rpartition('.')[2]}.{parameter}" for parameter in expert_weights(module))


def _modules(bare: BareModel) -> Iterator[str]:
    return (name.rpartition(".")[2] for name in bare.modules if name and not name.rpartition(".")[2].isdecimal())
