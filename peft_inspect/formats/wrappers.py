"""The wrappers around a base model, and the attribute paths that lead through them to one and the same object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from peft_inspect.formats.layout import towers_of
from peft_inspect.records import ModuleInfo, Structure

WRAPPERS = ("peft-model", "tuner")


@dataclass(frozen=True)
class Chain:
    """Root, PeftModel, tuner, base model: each step with the path that leads to it. Without PEFT: the root alone."""

    steps: tuple[ModuleInfo, ...]

    @property
    def base(self) -> ModuleInfo:
        """The innermost step."""
        return self.steps[-1]

    def __str__(self) -> str:
        return " → ".join(step.type for step in self.steps)


def chains(structure: Structure) -> tuple[Chain, ...]:
    """One chain per outermost PeftModel (or bare tuner); for a model without any, the root alone."""
    root = structure.module.get("") or structure.modules[0]
    found: list[Chain] = []
    inside: list[str] = []
    for module in structure.modules:
        if module.kind in WRAPPERS and not any(_below(module.path, path) for path in inside):
            steps = tuple(_inwards(module, structure))
            inside.append(module.path)
            found.append(Chain(steps if module is root else (root, *steps)))
    return tuple(found) or (Chain((root,)),)


def same_object(structure: Structure) -> tuple[tuple[str, str], ...]:
    """Pairs of paths to one object, for every tower with adapters inside a PeftModel: the short one people write, and the live one.

    PeftModel and tuner forward the attributes they do not have themselves, so `peft_model.model` is the base model
    that is registered at `peft_model.base_model.model`.
    """
    pairs: list[tuple[str, str]] = []
    for chain in chains(structure):
        for tower in _adapted(structure):
            pairs += [(short, tower) for short in _forwarded(tower, chain, structure)]
    return tuple(pairs)


def _adapted(structure: Structure) -> Iterator[str]:
    for tower in towers_of(structure):
        if any(layer.path.startswith(tower + ".") for layer in structure.adapter_layers):
            yield tower


def _inwards(module: ModuleInfo, structure: Structure) -> Iterator[ModuleInfo]:
    yield module
    while module.kind in WRAPPERS:
        name = "base_model" if module.kind == "peft-model" else "model"
        child = structure.module.get(f"{module.path}.{name}" if module.path else name)
        if child is None:
            return
        yield child
        module = child


def _forwarded(path: str, chain: Chain, structure: Structure) -> Iterator[str]:
    """Shorter paths to `path` that the wrappers forward."""
    wrappers = [step for step in chain.steps if step.kind in WRAPPERS]
    if not wrappers or not path.startswith(chain.base.path + "."):
        return
    rest = path[len(chain.base.path) + 1 :]
    outer, inner = wrappers[0], wrappers[-1]
    prefix = outer.path + "." if outer.path else ""
    if inner is not outer:
        yield f"{prefix}model.{rest}"
    first = rest.partition(".")[0]
    if not any(f"{step.path}.{first}".lstrip(".") in structure.module for step in wrappers):
        yield f"{prefix}{rest}"


def _below(path: str, parent: str) -> bool:
    return not parent or path == parent or path.startswith(parent + ".")
