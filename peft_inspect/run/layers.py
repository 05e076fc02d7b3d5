"""The adapter layers of a live model and the modules that it trains copies of, and whose storage is whose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper

from peft_inspect.run.weightless import storage_key
from peft_inspect.structure.adapter_layers import prompted
from peft_inspect.structure.shards import flattened, own_name
from peft_inspect.structure.wrappers import ADDED, around, inside

if TYPE_CHECKING:
    from torch import nn

    from peft_inspect.records import Structure


class State(NamedTuple):
    """How an adapter layer stands at one moment."""

    enabled: bool
    merged: bool
    active: tuple[str, ...]


class AdapterLayers:
    """The adapter layers that `structure` lists, as live objects. Modules are known by `id`."""

    def __init__(self, model: nn.Module, structure: Structure) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.around: dict[int, str] = {}  # what is put around modules, by the path of what is inside
        self.parts: set[int] = set()  # weights that FSDP shows one by one, and of which it leaves a part here
        self._add_modules(model)
        self.parameters: dict[str, nn.Parameter] = {
            f"{path}.{own_name(parameter, name)}" if path else own_name(parameter, name): parameter
            for path, module in self.modules.items()
            for name, parameter in module._parameters.items()
            if parameter is not None
        }
        modules = self.modules
        paths = dict.fromkeys(layer.path for layer in structure.adapter_layers)
        self.module: dict[int, nn.Module] = {id(modules[path]): modules[path] for path in paths}
        self.path: dict[int, str] = {id(modules[path]): path for path in paths}
        self.of_path: dict[str, nn.Module] = {path: modules[path] for path in paths}
        self.bases: dict[int, tuple[int, ...]] = {}  # base layer → the adapter layers around it
        self.enclosing: dict[int, tuple[int, ...]] = {}  # adapter layer → adapter layers further out that hold it
        self.base_weights: dict[int, frozenset[tuple[int, str]]] = {}  # storage → (adapter layer, parameter name)
        self.adapter_weights: dict[int, tuple[int, str]] = {}  # storage → (adapter layer, adapter)
        self.before: dict[int, nn.Module] = {}  # prompt encoder → the model that puts the prompt before the inputs of its base
        self.wrapper: dict[int, nn.Module] = {}  # around a module of `modules_to_save` and its trained copies
        for layer in self.module.values():
            self._add_bases(layer)
        for key, holder in prompted(modules.values()).items():
            if key in self.module:
                self.before[key] = holder
                self.bases[id(inside(holder.base_model))] = (key,)
        for path, module in modules.items():
            if isinstance(module, ModulesToSaveWrapper):
                self._add_wrapper(path, module)
        self._held: dict[int, tuple[str, ...]] = {}  # the adapters in each
        for row in structure.adapter_layers:
            key = id(modules[row.path])
            self._held[key] = (*self._held.get(key, ()), row.adapter)
            for path in row.parameters:
                self.adapter_weights[storage_key(self.parameters[path])] = (id(modules[row.path]), row.adapter)
        self._add_enclosing()

    def state(self, layer: Any) -> State:
        """The state of one of them. What holds weights beside the layers, such as a prompt, has none of its own."""
        if isinstance(layer, BaseTunerLayer):
            return State(not layer.disable_adapters, layer.merged, tuple(layer.active_adapters))
        return State(enabled=True, merged=False, active=self._held[id(layer)])

    def _add_modules(self, model: nn.Module) -> None:
        held = tuple(f"{name}." for name in ADDED)
        self.around.update((id(wrapper), "") for wrapper in around(model))
        self.parts.update(id(parameter) for wrapper in around(model) for parameter, _ in flattened(wrapper))
        for path, module in inside(model).named_modules(remove_duplicate=False):
            plain = f"{path}."
            for name in held:
                plain = plain.replace(name, "")
            if inside(module) is module:
                self.modules.setdefault(plain[:-1], module)
            else:
                self.around[id(module)] = plain[:-1]
                self.parts.update(id(parameter) for parameter, _ in flattened(module))

    def _add_bases(self, layer: nn.Module) -> None:
        """An adapter layer may wrap another one; every base below belongs to all layers around it."""
        outer: tuple[int, ...] = (id(layer),)
        base = getattr(layer, "base_layer", None)
        while base is not None:
            base = inside(base)
            self.bases[id(base)] = tuple(dict.fromkeys((*self.bases.get(id(base), ()), *outer)))
            if not isinstance(base, BaseTunerLayer):
                for name, parameter in base.named_parameters(recurse=False):
                    if parameter.dim() > 1:  # adapters are added to matrices and kernels; a bias may be read by anyone
                        key = storage_key(parameter)
                        self.base_weights[key] = self.base_weights.get(key, frozenset()) | {(id(layer), name)}
            base = getattr(base, "base_layer", None) if isinstance(base, BaseTunerLayer) else None

    def _add_wrapper(self, path: str, wrapper: ModulesToSaveWrapper) -> None:
        """The original inside is its base: whoever calls that, or reads its weights, passes the trained copy by."""
        self.wrapper[id(wrapper)] = wrapper
        self.path.setdefault(id(wrapper), path)
        self.bases[id(wrapper.original_module)] = (id(wrapper),)
        for name, parameter in wrapper.original_module.named_parameters():
            key = storage_key(parameter)
            self.base_weights[key] = self.base_weights.get(key, frozenset()) | {(id(wrapper), name)}

    def _add_enclosing(self) -> None:
        for path in self.of_path:
            parts = path.split(".")
            outer = [around for end in range(1, len(parts)) if (around := ".".join(parts[:end])) in self.of_path]
            if outer:
                self.enclosing[id(self.of_path[path])] = tuple(id(self.of_path[around]) for around in outer)
