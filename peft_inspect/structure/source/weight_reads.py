"""Which layers the code of a module reads the weights of, besides or instead of calling them."""

from __future__ import annotations

import dis
import functools
import inspect
from types import CodeType
from typing import Any

_WEIGHTS = ("weight", "bias")
_HARMLESS = ("dtype", "device", "shape", "size", "dim", "ndim", "requires_grad", "is_cuda", "numel")  # nothing computes with these


@functools.cache
def weights_read(cls: Any) -> frozenset[str]:
    """Attribute names `x` for which the methods of a module class contain `….x.weight` or `….x.bias`."""
    found: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.startswith(("torch.", "transformers.")) and not base.__module__.startswith("transformers.models."):
            continue
        for value in vars(base).values():
            code = getattr(inspect.unwrap(value), "__code__", None) if callable(value) else None
            if isinstance(code, CodeType):
                found.update(_read_in(code))
    return frozenset(found)


def _read_in(code: CodeType) -> set[str]:
    steps = list(dis.get_instructions(code))
    attributes = [step.argval if step.opname in ("LOAD_ATTR", "LOAD_METHOD") else None for step in steps]
    triples = zip(attributes, attributes[1:], [*attributes[2:], None], strict=False)
    return {
        name
        for at, (name, weight, after) in enumerate(triples)
        if name is not None and weight in _WEIGHTS and after not in _HARMLESS and not _is_tested(steps, at)
    }


def _is_tested(steps: list[dis.Instruction], at: int) -> bool:
    """Whether the dotted name around the attribute that is loaded at `at` is the argument of a test of its type."""
    start = at
    while start > 0 and steps[start].opname.startswith(("LOAD_ATTR", "LOAD_FAST")):
        start -= 1
    return steps[start].opname == "LOAD_GLOBAL" and steps[start].argval in ("isinstance", "hasattr")
