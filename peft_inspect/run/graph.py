"""The autograd graph, walked from a tensor backwards."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.autograd.function import BackwardCFunction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

Node = Any  # torch.autograd.graph.Node; its wrappers are compared by identity, so keep them alive

ZERO_DERIVATIVE = frozenset(
    f"{name}Backward{overload}"
    for name in ("Round", "Floor", "Ceil", "Trunc", "Fix", "Sign", "Sgn", "Heaviside", "Bernoulli", "Poisson", "FloorDivide")
    for overload in range(3)
)
NO_BACKWARD = frozenset({"torch::autograd::WarnNotImplemented"})
"""Operations of a library that registered no derivative: gradients end there, with a warning."""
ENDS = ZERO_DERIVATIVE | NO_BACKWARD


class _Walks(threading.local):
    """The nodes that walks have seen, for each thread; None where nobody waits to let go of them."""

    seen: set[Node] | None = None


_walks = _Walks()


@contextmanager
def let_go() -> Iterator[None]:
    """Graphs that are walked inside are freed at the end, once nothing else holds them, from the loss on and node by node.

    A node that Python has seen frees what it leads to by recursion, and the graph of a thousand layers is deeper than any stack.
    """
    outer, _walks.seen = _walks.seen, set()
    try:
        yield
    finally:
        seen, _walks.seen = _walks.seen, outer
        if outer is not None:
            outer |= seen
        else:
            _free(seen)


def _free(nodes: set[Node]) -> None:
    """Drop each node when all that lead to it are gone, and what it leads to is still held."""
    waiting = Counter(after for node in nodes for after in _after(node) if after in nodes)
    free = [node for node in nodes if node not in waiting]
    nodes.clear()
    while free:
        node = free.pop()
        for after in _after(node):
            if after in waiting:
                waiting[after] -= 1
                if not waiting[after]:
                    del waiting[after]
                    free.append(after)


def _after(node: Node) -> list[Node]:
    try:
        return [after for after, _ in node.next_functions]
    except RuntimeError:  # a custom function that is gone already: before torch 2.14 seeing it does not keep it
        return []


def upstream(roots: Iterable[Node | None], *, through_zero: bool = True) -> set[Node]:
    """Every node that is connected to `roots`; `through_zero=False` stops where there is no derivative, or one that is zero everywhere."""
    seen: set[Node] = set()
    pending = [root for root in roots if root is not None]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if through_zero or node.name() not in ENDS:
            pending.extend(following for following, _ in node.next_functions if following is not None)
    if _walks.seen is not None:
        _walks.seen |= seen
    return seen


def leaves(nodes: Iterable[Node]) -> set[int]:
    """The `id` of every leaf tensor that these nodes accumulate a gradient into."""
    return {id(node.variable) for node in nodes if hasattr(node, "variable")}


def is_opaque(nodes: Iterable[Node]) -> bool:
    """Whether any node runs Python of its own in the backward, so that only running it tells what it reaches."""
    return any(isinstance(node, BackwardCFunction) for node in nodes)


def node_of(tensor: Tensor) -> Node | None:
    """Where the gradient of a tensor comes from; None for leaves and for tensors outside the graph."""
    node = tensor.grad_fn
    if node is not None and _walks.seen is not None:
        _walks.seen.add(node)
    return node
