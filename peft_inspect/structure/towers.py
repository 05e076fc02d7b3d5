"""Towers and their stacks of repeated blocks, found by how a model is built rather than by the names of its parts."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from peft import PeftMixedModel, PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import nn
from transformers import PreTrainedModel

from peft_inspect.records import BlockStack, Tower
from peft_inspect.structure.kinds import LINEARS, holds_experts, kind_of
from peft_inspect.structure.quantization import is_packed_linear
from peft_inspect.structure.wrappers import class_of
from peft_inspect.walk import defined_in

if TYPE_CHECKING:
    from peft_inspect.structure.inventory import Inventory

_WRAPPERS = (PeftModel, PeftMixedModel, BaseTuner)
_HALVES = ("encoder", "decoder")


def towers_of(inventory: Inventory) -> tuple[Tower, ...]:
    """The towers of a model, in the order of its modules; none for a model without repeated blocks."""
    stacks = tuple(_stacks(inventory))
    return tuple(_Splitter(inventory).towers("", stacks)) if stacks else ()


def _stacks(inventory: Inventory) -> Iterator[str]:
    """The outermost lists of blocks; where the blocks are stages, the lists of blocks within them."""
    sizes = _sizes(inventory)
    lists = [path for path, module in inventory.modules.items() if _is_stack(path, module, inventory)]
    found: list[str] = []
    for path in lists:
        if any(path.startswith(outer + ".") for outer in found):
            continue
        inner = _within_stages(path, lists, inventory, sizes)
        found.append(path)
        yield from inner or (path,)


def _is_stack(path: str, module: nn.Module, inventory: Inventory) -> bool:
    """A list of networks with matrices in them. Experts beside one another are no blocks after one another."""
    if not path or not isinstance(module, (nn.ModuleList, nn.Sequential)) or not module._modules or "expert" in path.rpartition(".")[2]:
        return False
    if isinstance(module, nn.Sequential) and len({type(child) for child in module}) > 1:
        return False
    return all(name.isdecimal() for name in module._modules) and all(_is_block(child) for child in inventory.children(path).values())


def _is_block(module: nn.Module) -> bool:
    return bool(module._modules) and kind_of(module) in ("other", "container") and any(_is_matrix(below) for below in module.modules())


def _is_matrix(module: nn.Module) -> bool:
    return isinstance(module, (*LINEARS, nn.MultiheadAttention)) or holds_experts(module) or is_packed_linear(module)


def _within_stages(path: str, lists: Sequence[str], inventory: Inventory, sizes: dict[str, int]) -> tuple[str, ...]:
    """The lists of equal blocks that make up most of the blocks of `path`, as in a hierarchical vision model."""
    inner: list[str] = []
    for name in inventory.children(path):
        block = _join(path, name)
        below = [other for other in lists if other.startswith(block + ".") and _alike(inventory.modules[other])]
        outermost = [other for other in below if not any(other.startswith(outer + ".") for outer in below)]
        if 2 * sum(sizes[other] for other in outermost) > sizes.get(block, 0):
            inner += outermost
    return tuple(inner) if len({_step(path, other) for other in inner}) * 2 > len(inventory.children(path)) else ()


def _alike(module: nn.Module) -> bool:
    return len({type(child) for child in module.children()}) == 1


def _sizes(inventory: Inventory) -> dict[str, int]:
    """Elements of all parameters below each module."""
    sizes = dict.fromkeys(inventory.modules, 0)
    for path, parameter in inventory.parameters.items():
        count, holder = parameter.numel(), inventory.holder[path]
        while True:
            sizes[holder] += count
            if not holder:
                break
            holder = holder.rpartition(".")[0]
    return sizes


class _Splitter:
    """Divides a model into towers, from the outside in."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory

    def towers(self, top: str, stacks: Sequence[str]) -> Iterator[Tower]:
        """The towers that `stacks` belong to, all of which lie at or below `top`."""
        meeting = _common([stack.rpartition(".")[0] for stack in stacks])
        branches: dict[str, list[str]] = {}
        for stack in stacks:
            branches.setdefault(_step(meeting, stack), []).append(stack)
        apart = {branch: held for branch, held in branches.items() if branch not in stacks and self._stands_alone(meeting, branch, held)}
        apart = {branch: held for branch, held in apart.items() if not self._is_stage(branch, held, apart, branches)}
        if len(branches) == 1 or not apart:
            yield self._tower(self._outermost(top, meeting), stacks)
            return
        together = [stack for stack in stacks if _step(meeting, stack) not in apart]
        if together:
            yield self._tower(meeting, together)
        for branch, held in apart.items():
            yield from self.towers(branch, held)
        yield from (Tower(path, self._type(path), (), path) for path in self._connectors(meeting, apart))

    def _is_stage(self, branch: str, held: list[str], apart: Collection[str], branches: Mapping[str, list[str]]) -> bool:
        """Whether a branch is made of the blocks that lists of stages beside it are made of, as the middle of a U-Net is."""
        if isinstance(self.inventory.modules[branch], PreTrainedModel):
            return False
        beside = {kind for other, stacks in branches.items() if other not in apart for stack in stacks for kind in self._stack(stack).types}
        return all(kind in beside for stack in held for kind in self._stack(stack).types)

    def _stands_alone(self, meeting: str, branch: str, stacks: Sequence[str]) -> bool:
        """Whether a branch is a network of its own. Inside a pretrained model that is a pretrained model again; elsewhere any module."""
        below = {path for stack in stacks for path in self._chain(branch, stack)}
        if any(isinstance(self.inventory.modules[path], PreTrainedModel) for path in below):
            return True
        if any(isinstance(self.inventory.modules[path], (nn.ModuleList, nn.Sequential)) for path in (meeting, branch) if path):
            return False  # a list of stages, and each of them: one network, as the halves of a U-Net are
        return not any(map(_is_whole_model, (self.inventory.modules[path] for path in self._chain("", meeting))))

    def _outermost(self, top: str, meeting: str) -> str:
        """The path a tower is known by: right below the model that was wrapped or given, else the branch it stands on."""
        chain = self._chain(top, meeting)
        wrapped = [at for at, path in enumerate(chain) if isinstance(self.inventory.modules[path], _WRAPPERS)]
        if not wrapped and top:
            return top
        pretrained = [at for at, path in enumerate(chain) if isinstance(self.inventory.modules[path], PreTrainedModel)]
        base = wrapped[-1] + 1 if wrapped else next(iter(pretrained), 0)
        return chain[min(base + 1, len(chain) - 1)]

    def _connectors(self, meeting: str, apart: dict[str, list[str]]) -> Iterator[str]:
        """Networks without blocks that stand between towers: projectors, mergers."""
        if len({self._family(branch) for branch in apart}) > 1:
            for name, module in self.inventory.children(meeting).items():
                path = _join(meeting, name)
                if path not in apart and path in self.inventory.modules and module._modules and any(map(_is_matrix, module.modules())):
                    yield path

    def _tower(self, path: str, stacks: Sequence[str]) -> Tower:
        return Tower(path, self._type(path), tuple(self._stack(stack) for stack in stacks), self._family(path))

    def _stack(self, path: str) -> BlockStack:
        blocks = self.inventory.children(path)
        return BlockStack(path, tuple(map(int, blocks)), tuple(class_of(block).__name__ for block in blocks.values()))

    def _family(self, path: str) -> str:
        """Equal for towers that are one model together: encoder and decoder, or parts that share one config class."""
        parent, _, name = path.rpartition(".")
        if name in _HALVES:
            return f"{parent}.encoder-decoder"
        config = getattr(self.inventory.modules[path], "config", None)
        described = config if config is not None and not isinstance(config, dict) else self.inventory.modules[path]
        return f"{parent}.{type(described).__name__}"

    def _type(self, path: str) -> str:
        return class_of(self.inventory.modules[path]).__name__

    def _chain(self, top: str, bottom: str) -> list[str]:
        """The paths from `top` down to `bottom`, both included."""
        parts = bottom.split(".") if bottom else []
        start = len(top.split(".")) if top else 0
        return [".".join(parts[:end]) for end in range(start, len(parts) + 1)]


def _is_whole_model(module: nn.Module) -> bool:
    """A model that comes as a whole from transformers or diffusers."""
    named = ((defined_in(base).partition(".")[0], base.__name__) for base in type(module).__mro__)
    return isinstance(module, PreTrainedModel) or ("diffusers", "ModelMixin") in named


def _common(paths: Sequence[str]) -> str:
    """The innermost module that holds all of them."""
    split = [path.split(".") if path else [] for path in paths]
    shared = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*split, strict=False))
    return ".".join(names[0] for names in shared)


def _step(top: str, path: str) -> str:
    """The module right below `top` on the way to `path`."""
    rest = path[len(top) + 1 :] if top else path
    return _join(top, rest.partition(".")[0])


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
