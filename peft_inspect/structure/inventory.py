"""Every module and parameter of a live model, under every attribute path that leads to it, in one walk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peft_inspect.structure.shards import flattened, own_name
from peft_inspect.structure.wrappers import around, inside

if TYPE_CHECKING:
    import torch
    from torch import nn

_MOST_PATHS = 16  # a module that sits in more places than this is known by the first of them


@dataclass
class Inventory:
    """Modules and parameters by their canonical path: the first in the order of `named_modules()`.

    `module_aliases` and `parameter_aliases` hold the other paths, those that only `remove_duplicate=False` shows.
    """

    modules: dict[str, nn.Module] = field(default_factory=dict)
    parameters: dict[str, torch.nn.Parameter] = field(default_factory=dict)
    holder: dict[str, str] = field(default_factory=dict)  # parameter path → path of the module that registers it
    module_aliases: dict[str, list[str]] = field(default_factory=dict)
    parameter_aliases: dict[str, list[str]] = field(default_factory=dict)
    module_path: dict[int, str] = field(default_factory=dict)  # by id
    parameter_path: dict[int, str] = field(default_factory=dict)
    whole: dict[int, tuple[int, ...]] = field(default_factory=dict)  # by id: shapes of weights of which only a part is seen here

    def children(self, path: str) -> dict[str, nn.Module]:
        """The modules registered right below `path`, by attribute name."""
        return {name: inside(child) for name, child in self.modules[path]._modules.items() if child is not None}


def take_inventory(model: nn.Module) -> Inventory:
    """Walk `model` once, parents first; a shared module is walked again for each further path to it.

    What is only put around a module is not there, and adds nothing to the paths.
    """
    inventory = Inventory()
    stack: list[tuple[nn.Module, str, frozenset[int]]] = [(model, "", frozenset())]
    while stack:
        outer, path, above = stack.pop()
        module = inside(outer)
        for wrapper in around(outer):
            inventory.module_path.setdefault(id(wrapper), path)
            inventory.whole.update((id(parameter), shape) for parameter, shape in flattened(wrapper))
        if not _enter(inventory, module, path, above):
            continue
        prefix = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is not None:
                _add_parameter(inventory, parameter, prefix + own_name(parameter, name), path)
        if module._modules:
            above |= {id(module)}
            stack += [(child, prefix + name, above) for name, child in reversed(module._modules.items()) if child is not None]
    return inventory


def _enter(inventory: Inventory, module: nn.Module, path: str, above: frozenset[int]) -> bool:
    """Note the path, and say whether to walk on below it: not into a cycle, and not without end."""
    known = inventory.module_path.setdefault(id(module), path)
    if known == path:
        inventory.modules[path] = module
        return True
    aliases = inventory.module_aliases.setdefault(known, [])
    if len(aliases) >= _MOST_PATHS:
        return False
    aliases.append(path)
    return id(module) not in above


def _add_parameter(inventory: Inventory, parameter: torch.nn.Parameter, path: str, holder: str) -> None:
    known = inventory.parameter_path.setdefault(id(parameter), path)
    if known == path:
        inventory.parameters[path] = parameter
        inventory.holder[path] = holder
    else:
        inventory.parameter_aliases.setdefault(known, []).append(path)
