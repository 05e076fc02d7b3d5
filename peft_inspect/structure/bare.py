"""A base model under the names it had before wrapping: those that the fields of a PEFT config speak of."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper

from peft_inspect.internals import find
from peft_inspect.structure.wrappers import inside

if TYPE_CHECKING:
    from torch import nn

    from peft_inspect.structure.inventory import Inventory

_TRAINED_COPY = find("AuxiliaryTrainingWrapper") or ModulesToSaveWrapper


@dataclass
class BareModel:
    """The base model at `path`. Names are relative to it and know no wrapper.

    `live` is where a name is now, the outermost wrapper around it; `modules` is what stands innermost there;
    `adapters` are the adapter layers around it, outermost first, by live path. `holder` maps a parameter name to
    the name of its module.
    """

    path: str
    live: dict[str, str] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    adapters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    name_of: dict[str, str] = field(default_factory=dict)  # live path of an adapter layer or training wrapper → name
    holder: dict[str, str] = field(default_factory=dict)

    def ending_in(self, entry: str) -> tuple[str, ...]:
        """Names whose last part is that of `entry`: the only ones that a suffix can match."""
        return self._by_ending.get(entry.rpartition(".")[2], ())

    @property
    def endings(self) -> Collection[str]:
        """The last parts of all names."""
        return self._by_ending.keys()

    def __post_init__(self) -> None:
        self._by_ending: dict[str, tuple[str, ...]] = {}

    def index(self) -> None:
        """Prepare `ending_in`."""
        by_ending: dict[str, list[str]] = {}
        for name in self.modules:
            by_ending.setdefault(name.rpartition(".")[2], []).append(name)
        self._by_ending = {ending: tuple(names) for ending, names in by_ending.items()}


def bare_model(path: str, inventory: Inventory) -> BareModel:
    """Walk the base model at `path` past adapter layers and training wrappers, each object once."""
    bare = BareModel(path)
    stack = [(inventory.modules[path], "")]
    seen: set[int] = set()
    while stack:
        module, name = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        inner = _enter(bare, module, name, inventory)
        seen.add(id(inner))
        prefix = f"{name}." if name else ""
        for parameter, value in inner._parameters.items():
            if value is not None:
                bare.holder[prefix + parameter] = name
        stack += [(inside(child), prefix + step) for step, child in reversed(inner._modules.items()) if child is not None]
    bare.index()
    return bare


def _enter(bare: BareModel, module: nn.Module, name: str, inventory: Inventory) -> nn.Module:
    wrappers = list(_wrappers(module))
    inner = wrappers[-1]
    bare.modules[name] = inner
    bare.live[name] = inventory.module_path[id(module)]
    for wrapper in wrappers[:-1]:
        bare.name_of[inventory.module_path[id(wrapper)]] = name
    bare.adapters[name] = tuple(inventory.module_path[id(wrapper)] for wrapper in wrappers[:-1] if isinstance(wrapper, BaseTunerLayer))
    return inner


def _wrappers(module: nn.Module) -> Iterator[nn.Module]:
    """The module, and all that is wrapped in it down to the base layer."""
    inner: nn.Module | None = module
    while inner is not None:
        inner = inside(inner)
        yield inner
        if isinstance(inner, BaseTunerLayer):
            inner = inner._modules.get("base_layer")
        elif isinstance(inner, _TRAINED_COPY):
            inner = inner._modules.get("original_module") or inner._modules.get("token_adapter")
        else:
            inner = None


def output_layer(bare: BareModel) -> nn.Module | None:
    """The output embedding of a pretrained model, innermost; None where the model has none or does not say."""
    try:
        model: Any = bare.modules[""]
        output = model.get_output_embeddings()
    except Exception:  # not a pretrained model, or one that does not say which of its layers it is
        return None
    return list(_wrappers(output))[-1] if output is not None else None
