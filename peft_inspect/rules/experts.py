"""Experts behind a router: which of them work depends on the batch, by design."""

from __future__ import annotations

import re

from peft_inspect.records import Structure, Trace

_NUMBERED = re.compile(r"(?:expert_)?\d+")  # in a list, or in a dict


def is_expert(structure: Structure, path: str) -> bool:
    """Whether the module at `path` is one of several experts behind a router."""
    stack, _, index = path.rpartition(".")
    if not _NUMBERED.fullmatch(index):
        return False
    owner = stack.rpartition(".")[0]
    routed = any(module.routes and module.path.rpartition(".")[0] == owner for module in structure.modules)
    return routed or "expert" in stack.rpartition(".")[2].lower()


def expert_of(structure: Structure, path: str) -> str | None:
    """The expert that the module at `path` is, or belongs to; None for a module outside experts. An expert may be a dict of layers."""
    parts = path.split(".")
    return next((around for end in range(1, len(parts) + 1) if is_expert(structure, around := ".".join(parts[:end]))), None)


def got_no_token(trace: Trace, path: str) -> bool:
    """Whether all its calls were for no token at all, or are those of an expert that is multiplied by zero beside one that trains."""
    calls = trace.calls_of.get(path, ())
    if calls and all(call.empty for call in calls):
        return any(row.layer is not None and row.state == "ok" for row in trace.gradients)
    expert = expert_of(trace.structure, path)
    if expert is None:
        return False
    stack = expert.rpartition(".")[0] + "."
    return any((row.layer or "").startswith(stack) and row.state == "ok" for row in trace.gradients)


def unrouted(trace: Trace, path: str) -> bool:
    """Whether it belongs to an expert that this batch routed nothing to: others beside it ran."""
    expert = expert_of(trace.structure, path)
    if expert is None:
        return False
    stack = expert.rpartition(".")[0] + "."
    return any(other.startswith(stack) and not f"{other}.".startswith(f"{expert}.") for other in trace.executed)
