"""Experts behind a router: which of them work depends on the batch, by design."""

from __future__ import annotations

import re

from peft_inspect.records import Structure

_NUMBERED = re.compile(r"(?:expert_)?\d+")  # in a list, or in a dict


def is_expert(structure: Structure, path: str) -> bool:
    """Whether the module at `path` is one of several experts behind a router."""
    stack, _, index = path.rpartition(".")
    if not _NUMBERED.fullmatch(index):
        return False
    owner = stack.rpartition(".")[0]
    routed = any(module.routes and module.path.rpartition(".")[0] == owner for module in structure.modules)
    return routed or "expert" in stack.rpartition(".")[2].lower()
