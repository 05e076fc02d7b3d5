"""Default configurations that do not build as they are: values they leave open are filled in, or a smaller class is taken."""

from __future__ import annotations

import contextlib
import copy
import operator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peft_inspect.load.model.config_tree import parts
from peft_inspect.load.model.model_class import model_classes
from peft_inspect.load.model.model_config import overridden
from peft_inspect.load.model.valid_config import make_valid
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PretrainedConfig

    from peft_inspect.load.model.build import Blueprint

# Fields that some default configurations leave empty because every checkpoint brings its own, with a usual value for each.
_USUAL: dict[str, Callable[[Any], Any]] = {
    "num_key_value_heads": lambda config: config.num_attention_heads,
    "head_dim": lambda config: config.hidden_size // config.num_attention_heads,
    "layer_types": lambda config: ["full_attention"] * config.num_hidden_layers,
    "mlp_layer_types": lambda config: ["dense"] * config.num_hidden_layers,
    "vocab_size": lambda _: 32_000,
    "prediction_length": lambda _: 24,
    "dropout_rate": lambda _: 0.0,
    "n_routed_experts": lambda _: 8,
    "num_experts": lambda _: 8,
    "num_experts_per_tok": lambda _: 2,
    "top_k_experts": lambda _: 2,
    "moe_intermediate_size": lambda config: config.intermediate_size,
    "shared_expert_intermediate_size": lambda config: config.intermediate_size,
}


def alternatives(blueprint: Blueprint, task_type: str | None) -> Iterator[tuple[Blueprint, str]]:
    """Other blueprints for a default configuration that does not build, nearest first, each with a note on what differs.

    One value is filled in before several are, and a value before the class is changed.
    """
    values = dict(_open_values(blueprint.config))
    empty = {key: value for key, value in values.items() if _declared(blueprint.config, key)}
    for filled in (*({key: value} for key, value in values.items()), empty):
        config = _filled(blueprint.config, filled)
        if config is not None:
            shown = ", ".join(key if isinstance(value, list) else f"{key}={value}" for key, value in filled.items())
            yield replace(blueprint, config=config), f"the default configuration leaves values open; filled in: {shown}"
    for other in model_classes(blueprint.config, task_type):
        if other is not blueprint.model_class:
            note = f"{blueprint.model_class.__name__} does not build from the default configuration: {other.__name__} instead"
            yield replace(blueprint, model_class=other), note


def _open_values(config: PretrainedConfig) -> Iterator[tuple[str, Any]]:
    """Dotted keys that have no value, with a usual one."""
    for name, usual in _USUAL.items():
        for prefix, part in parts(config):
            if vars(part).get(name) is None:
                with contextlib.suppress(Exception):  # a configuration without the fields that the value follows from
                    yield f"{prefix}{name}", usual(part)


def _declared(config: PretrainedConfig, key: str) -> bool:
    holder, name = _holder(config, key)
    return name in vars(holder)


def _filled(config: PretrainedConfig, values: dict[str, Any]) -> PretrainedConfig | None:
    """The configuration with values filled in; those that its class does not declare, though the model reads them, are set on it."""
    declared = {key: value for key, value in values.items() if _declared(config, key)}
    try:
        filled = overridden(config, {}, declared) if declared else copy.deepcopy(config)
        make_valid(filled)  # it is built anew from the defaults
        for key in values.keys() - declared.keys():
            holder, name = _holder(filled, key)
            setattr(holder, name, values[key])
    except (InspectionError, AttributeError):  # the class refuses the value, or derives the field
        return None
    return filled


def _holder(config: PretrainedConfig, key: str) -> tuple[PretrainedConfig, str]:
    prefix, _, name = key.rpartition(".")
    return (operator.attrgetter(prefix)(config) if prefix else config), name
