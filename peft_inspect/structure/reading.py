"""What is there: modules, parameters, adapters asked for and built. Reads only; nothing runs, and weights are not needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from peft_inspect.records import Mode, ModuleInfo, ParameterInfo, Role, Structure, Subject
from peft_inspect.reversible import uncollected
from peft_inspect.structure.adapter_layers import adapter_roles, adapter_rows, adapter_weights, is_real
from peft_inspect.structure.asked import AskedAndBuilt
from peft_inspect.structure.inventory import Inventory, take_inventory
from peft_inspect.structure.kinds import has_forward, kind_of, routers_of
from peft_inspect.structure.optimizers import held_by, unknown_holder
from peft_inspect.structure.owners import Owner, base_of, owners_of
from peft_inspect.structure.plain import config_values, dtype_name
from peft_inspect.structure.quantization import ConfiguredQuantization, storage_of
from peft_inspect.structure.shards import local, numbers, whole_shape
from peft_inspect.structure.source.reads import source_reads
from peft_inspect.structure.towers import towers_of
from peft_inspect.structure.wrappers import class_of, inside

if TYPE_CHECKING:
    import torch


def read_structure(subject: Subject) -> Structure:
    """Everything about a model that can be read without running it.

    Works on real, meta and weightless models. Paths are those of `subject.model`.
    """
    with uncollected():
        return _read(subject)


def _read(subject: Subject) -> Structure:
    inventory = take_inventory(subject.model)
    owners = owners_of(inventory)
    values = subject.weights != "none"
    towers = towers_of(inventory)
    base = _base_path(inventory, owners)
    optimized, unknown = _optimized(subject, inventory)
    asked = AskedAndBuilt(inventory, owners or (Owner(base, inventory.modules[base], {}, base),), towers)
    modules = tuple(_modules(inventory, asked.fresh()))
    built = adapter_weights(inventory)
    parameters = tuple(_parameters(inventory, owners, base, adapter_roles(inventory, built), values=values))
    layers = asked.layers(tuple(adapter_rows(inventory, built, values=values)), subject.requested)
    return Structure(
        root_type=class_of(inside(subject.model)).__name__,
        base_type=class_of(inventory.modules[base]).__name__,
        modules=modules,
        parameters=parameters,
        adapters=asked.adapters(layers, parameters),
        adapter_layers=layers,
        towers=towers,
        mode=_mode(modules),
        weights=subject.weights,
        model_config=config_values(getattr(inventory.modules[base], "config", None)),
        optimizer=optimized,
        copied={} if subject.changes is None else subject.changes.copies(inventory.parameters),
        optimizer_made=None if subject.changes is None else subject.changes.origin(subject.optimizer, inventory.parameters.values()),
        optimizer_unknown=unknown,
        source_file=subject.source_file,
        entry=subject.entry,
        notes=subject.notes,
        coverage=asked.coverage(layers, frozenset(module.path for module in modules if module.routes)),
        ties=asked.ties(layers),
        weight_reads=tuple(source_reads(inventory.modules, dict.fromkeys(layer.path for layer in layers))),
    )


def _base_path(inventory: Inventory, owners: tuple[Owner, ...]) -> str:
    """The model that was adapted; without adapters the model itself, or the one pretrained model that the user's module is built around."""
    if owners:
        return owners[0].base_path
    pretrained = next((path for path, module in inventory.modules.items() if isinstance(module, PreTrainedModel)), "")
    return base_of(pretrained, inventory)


def _modules(inventory: Inventory, fresh: frozenset[str]) -> Iterator[ModuleInfo]:
    routers = set(routers_of(inventory))
    for path, module in inventory.modules.items():
        kind = kind_of(module)
        yield ModuleInfo(
            path=path,
            type=class_of(module).__name__,
            kind="router" if path in routers and kind != "adapter-layer" else kind,
            training=getattr(module, "training", False),  # a frozen graph has no mode
            aliases=tuple(inventory.module_aliases.get(path, ())),
            routes=path in routers,
            fresh=path in fresh,
            has_forward=has_forward(module),
        )


def _parameters(
    inventory: Inventory, owners: tuple[Owner, ...], base: str, roles: Mapping[str, tuple[Role, str | None]], *, values: bool
) -> Iterator[ParameterInfo]:
    configured = None if values else ConfiguredQuantization(getattr(inventory.modules[base], "config", None))
    wrapped = tuple(owner.base_path for owner in owners)
    adapters = {path: parameter for path, parameter in inventory.parameters.items() if (roles.get(path) or ("",))[0] == "adapter"}
    zero = _all_zero(adapters) if values else {}
    for path, parameter in inventory.parameters.items():
        holder = inventory.modules[inventory.holder[path]]
        shape = inventory.whole.get(id(parameter)) or whole_shape(parameter)
        role, adapter = roles.get(path) or (_role(path, wrapped), None)
        yield ParameterInfo(
            path=path,
            module=inventory.holder[path],
            shape=shape,
            dtype=dtype_name(parameter.dtype),
            device=str(parameter.device),
            requires_grad=parameter.requires_grad,
            role=role,
            adapter=adapter,
            aliases=tuple(inventory.parameter_aliases.get(path, ())),
            numel=math.prod(shape),
            itemsize=parameter.element_size(),
            quantization=storage_of(parameter) or (configured.of(path, holder, parameter) if configured and role == "base" else None),
            zero=zero.get(path),
        )


def _role(path: str, wrapped: tuple[str, ...]) -> Role:
    """Base weights are those inside a model that PEFT was given; for a model without adapters, all of them."""
    return "base" if not wrapped or any(not base or path.startswith(base + ".") for base in wrapped) else "other"


def _all_zero(parameters: Mapping[str, torch.Tensor]) -> dict[str, bool]:
    """Whether all values that lie in this process are zero; on a CPU most tensors are told by their first value."""
    zero, elsewhere = {}, {}
    for path, parameter in parameters.items():
        if is_real(parameter) and (part := local(parameter)).numel():
            flat = part.reshape(-1)
            if flat.device.type == "cpu":
                zero[path] = not (bool(flat[0]) or bool(flat.any()))
            else:
                elsewhere[path] = flat.any()
    return zero | {path: not value for path, value in numbers(elsewhere).items()}


def _mode(modules: tuple[ModuleInfo, ...]) -> Mode:
    modes = {module.training for module in modules}
    if len(modes) > 1:
        return "mixed"
    return "train" if modes == {True} else "eval"


def _optimized(subject: Subject, inventory: Inventory) -> tuple[frozenset[str] | None, str | None]:
    """Paths of the parameters that the optimizer holds, or why that is not known. An optimizer knows tensors, not names."""
    if subject.optimizer is None:
        return None, None
    unknown = unknown_holder(subject.optimizer, inventory.parameters.values())
    if unknown is not None:
        return None, unknown
    held = {id(tensor) for tensor in held_by(subject.optimizer)}
    return frozenset(path for path, parameter in inventory.parameters.items() if id(parameter) in held), None
