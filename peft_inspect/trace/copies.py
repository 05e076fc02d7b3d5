"""Objects that ran in the place of modules that carry adapters: deep copies and second instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from peft_inspect.records import SWITCHES, CopyCall
from peft_inspect.run.weightless import is_weightless, storage_key
from peft_inspect.structure.shards import local

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peft_inspect.records import Trace
    from peft_inspect.run.layers import AdapterLayers
    from peft_inspect.trace.calls import Calls

Weights = Mapping[str, "Tensor"]


def find_copies(layers: AdapterLayers, calls: Calls, dead: frozenset[str]) -> tuple[CopyCall, ...]:
    """What ran in the place of `dead` adapter layers.

    A copy has the class of what it stands for, and the same base weights by name and shape. With the same
    values it is a copy; without, it counts only if the inspected PEFT model does not hold it, so that the
    second of two equal towers is no copy of the first.
    """
    if not dead:
        return ()
    found: list[CopyCall] = []
    explained: set[str] = set()
    modules = layers.modules
    for path in _outermost_first(dead, modules, calls):
        below = tuple(sorted(layer for layer in dead - explained if layer == path or layer.startswith(path + ".")))
        if not below:
            continue
        if path in layers.of_path and (twin := _twin(path, layers, calls)) is not None:
            found.append(CopyCall(path, calls.path_of(id(twin)), type(twin).__name__, below, True, calls.first_source(id(twin)), tied=True))
            explained |= set(below)
            continue
        match = _match(path, layers, calls, modules)
        if match is not None:
            copy, same = match
            at = calls.first_source(_outermost(path, id(copy), calls, modules))
            found.append(CopyCall(path, calls.path_of(id(copy)), type(copy).__name__, below, same, at))
            explained |= set(below)
    return tuple(found)


def _outermost(path: str, copy: int, calls: Calls, modules: Mapping[str, nn.Module]) -> int:
    """The outermost module around a copy that is a copy too, of what is around the module at `path`: where that is called is the fault."""
    around = [modules[outer] for outer in reversed(_ancestors(path)[:-1]) if outer in modules]
    while (caller := calls.caller_of(copy)) is not None and all(caller is not original for original in around):
        alike = next((place for place, original in enumerate(around) if type(original) is type(caller)), None)
        if alike is None:
            break
        around, copy = around[alike + 1 :], id(caller)
    return copy


def references(layers: AdapterLayers, trace: Trace) -> frozenset[str]:
    """Adapter layers of a teacher: they ran with gradients off alone or not at all, and stand for a trained layer of the same name.

    Either they are frozen, as a moving average is that no step of the training calls, or they ran and still equal it in every weight,
    as a deep copy of the trained model does.
    """
    trained: dict[str, list[nn.Module]] = {}
    for layer in trace.structure.adapter_layers:
        if layer.active and trace.reached(layer):
            trained.setdefault(layer.name, []).append(layers.of_path[layer.path])
    found = set()
    for layer in trace.dead:
        calls, twins = trace.calls_of.get(layer.path, ()), trained.get(layer.name, ())
        if twins and all(call.region is not None and call.region.kind in SWITCHES for call in calls):
            weights = dict(layers.of_path[layer.path].named_parameters())
            alike = [other for twin in twins if _alike(weights, other := dict(twin.named_parameters()))]
            if (alike and not trace.structure.trainable(layer)) or (calls and any(_same_values(weights, other) for other in alike)):
                found.add(layer.path)
    return frozenset(found)


def _alike(left: Weights, right: Weights) -> bool:
    return {name: weight.shape for name, weight in left.items()} == {name: weight.shape for name, weight in right.items()}


def copied_from(module: nn.Module, originals: Iterable[nn.Module]) -> nn.Module | None:
    """Which of `originals` a module outside the model is a copy of, or else stands for by its class and shapes; None for none."""
    alike = [original for original in originals if type(_base(module)) is type(_base(original)) and _shapes(module) == _shapes(original)]
    return next((original for original in alike if _same_values(_weights(original), _weights(module))), next(iter(alike), None))


def _shapes(module: nn.Module) -> Mapping[str, torch.Size]:
    return {name: weight.shape for name, weight in _weights(module).items()}


def _outermost_first(dead: frozenset[str], modules: Mapping[str, nn.Module], calls: Calls) -> list[str]:
    """Modules around dead layers in which no adapter layer was called: what a copy may stand for, from the outside in."""
    around = {path for layer in dead for path in _ancestors(layer)}
    called = {call.path for call in calls.found()}
    idle = [path for path in around if path in modules and not any(other == path or other.startswith(path + ".") for other in called)]
    return sorted(idle, key=lambda path: (path.count("."), path))


def _ancestors(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _base(module: nn.Module) -> nn.Module:
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def _weights(module: nn.Module) -> Weights:
    """Base weights by name, as they were named before the wrapping."""
    adapter = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, BaseTunerLayer)
        for name in layer.adapter_layer_names
        for parameter in getattr(layer, name).parameters()
    }
    weights = {}
    for name, parameter in module.named_parameters():
        if id(parameter) not in adapter:
            weights[".".join(part for part in name.split(".") if part != "base_layer")] = parameter
    return weights


def _match(path: str, layers: AdapterLayers, calls: Calls, modules: Mapping[str, nn.Module]) -> tuple[nn.Module, bool | None] | None:
    """What ran in the place of the module at `path`, and whether its values are the same."""
    original = _base(modules[path])
    weights = _weights(modules[path])
    own = {id(module) for module in modules[path].modules()}
    shapes = _shapes(modules[path])
    for module in calls.ran.values():
        held = calls.path_of(id(module))
        if id(module) in own or id(module) in layers.bases or type(_base(module)) is not type(original):
            continue
        if _are_siblings(path, held) or (not _is_elsewhere(held, path) and _is_adapted(module)):
            continue
        if not shapes or _shapes(module) != shapes:
            continue
        other = _weights(module)
        if any(storage_key(other[name]) == storage_key(weights[name]) for name in weights):
            continue  # the same weights under another module: a tie, not a copy
        same = _same_values(weights, other)
        if same and not module._modules and all(_is_one_number(weight) for weight in other.values()):
            continue  # a fresh norm is equal to every other
        if same or (_is_elsewhere(held, path) and original._modules and not _is_adapted(module)):
            return module, same
    return None


def _twin(path: str, layers: AdapterLayers, calls: Calls) -> nn.Module | None:
    """A module of the same class that ran with the very weights of an adapter layer which did not: they are tied."""
    original = _base(layers.of_path[path])
    keys = {storage_key(weight) for weight in original.parameters(recurse=False)}
    own = set(map(id, layers.of_path[path].modules()))
    alike = (module for module in calls.ran.values() if type(_base(module)) is type(original) and id(module) not in own)
    return next(
        (module for module in alike if any(storage_key(weight) in keys for weight in _base(module).parameters(recurse=False))), None
    )


def _are_siblings(path: str, other: str | None) -> bool:
    """Members of one list: equal blocks of one stack, which may start from equal values."""
    stack, _, index = path.rpartition(".")
    return other is not None and index.isdigit() and other.rpartition(".")[0] == stack


def _is_adapted(module: nn.Module) -> bool:
    return any(isinstance(inside, BaseTunerLayer) for inside in module.modules())


def _is_elsewhere(held: str | None, path: str) -> bool:
    """Whether a module is held outside the PEFT model that `path` belongs to."""
    start = f".{path}".find(".base_model.model.")
    return held is None or (start > 0 and not held.startswith(path[:start]))


def _is_one_number(weight: Tensor) -> bool:
    part = local(weight)
    return not part.numel() or bool((part == part.reshape(-1)[0]).all())


def _same_values(left: Weights, right: Weights) -> bool | None:
    pairs = [(weight, right[name]) for name, weight in left.items()]
    if any(is_weightless(tensor) or tensor.is_meta for pair in pairs for tensor in pair):
        return None
    return all(a.dtype == b.dtype and a.device == b.device and torch.equal(local(a), local(b)) for a, b in pairs)
