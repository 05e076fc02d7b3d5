"""A model's configuration: the defaults of a model type or a config.json, with the user's overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers import __version__ as transformers_version

from peft_inspect.load.bounds import require_sizes
from peft_inspect.load.files import plain_value
from peft_inspect.load.quiet import quiet
from peft_inspect.load.words import did_you_mean
from peft_inspect.records import InspectionError, text_of

_COUNTED_BY = {"num_labels": ("id2label", "label2id")}  # names of labels outweigh their number where a file has both


def default_config(model_type: str, overrides: Mapping[str, Any]) -> PretrainedConfig:
    """The configuration that transformers ships for a model type.

    Args:
        model_type: as in `config.json`, such as "qwen2_audio".
        overrides: values by dotted key, such as {"text_config.num_hidden_layers": 2}.

    Raises:
        InspectionError: transformers knows no such type or no such key, or refuses the values.
    """
    config_class = config_class_of(model_type)
    config = _create(config_class, {}, model_type)
    return overridden(config, {}, overrides) if overrides else config


def config_from(data: Mapping[str, Any], overrides: Mapping[str, Any], what: str) -> PretrainedConfig:
    """The configuration that the contents of a config.json describe.

    Args:
        data: the contents of the file.
        overrides: values by dotted key.
        what: the file as the user knows it, for messages.

    Raises:
        InspectionError: the model type is missing or unknown, or the values are refused.
    """
    model_type, architectures = data.get("model_type"), data.get("architectures")
    if not isinstance(model_type, str | None):
        raise InspectionError(f"{what}: model_type is {model_type!r}, and a name is needed")
    if architectures is not None and not (isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)):
        raise InspectionError(f"{what}: architectures is {architectures!r}, and a list of class names is needed")
    model_type = model_type or _type_of_architecture(architectures)
    if model_type is None:
        raise InspectionError(f"{what} has no model_type, so it does not say which architecture it configures")
    config_class = config_class_of(model_type, remote="auto_map" in data)
    config = _create(config_class, data, what)
    return overridden(config, data, overrides) if overrides else config


def config_class_of(model_type: str, *, remote: bool = False) -> type[PretrainedConfig]:
    """The configuration class of a model type; `remote` says that the repository brings code of its own for it.

    Raises:
        InspectionError: the installed transformers does not know the type.
    """
    if model_type in CONFIG_MAPPING:
        config_class: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
        return config_class
    if remote:
        raise InspectionError(
            f"the model type {model_type!r} is defined by code in its repository, which is not run unasked: "
            "read that code, then pass --trust-remote-code"
        )
    hint = did_you_mean(model_type, CONFIG_MAPPING.keys())
    raise InspectionError(
        f"transformers {transformers_version} knows no model type {model_type!r}{hint or '; a newer transformers may know it'}"
    )


def overridden(config: PretrainedConfig, data: Mapping[str, Any], overrides: Mapping[str, Any]) -> PretrainedConfig:
    """A new configuration of the same class with some values replaced.

    It is built anew rather than changed in place, so that what the class derives from a value
    (layer types from the number of layers, sizes of heads) follows it.

    Args:
        config: the configuration as it is.
        data: the values it was made from; {} for a default configuration.
        overrides: values by dotted key.

    Raises:
        InspectionError: a key does not exist, or the new values are refused.
    """
    nested = _nested(config, overrides)
    require_sizes(nested, "--config-set")
    shown = " ".join(f"{key}={value}" for key, value in overrides.items())
    return _create(type(config), _merged(config, data, nested), f"{config.model_type} with {shown}")


def _nested(config: PretrainedConfig, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings, each key checked to exist."""
    nested: dict[str, Any] = {}
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        level, holder = nested, config
        for parent in parents:
            _require_key(holder, parent, dotted)
            level, holder = level.setdefault(parent, {}), _item(holder, parent)
        _require_key(holder, last, dotted)
        level[last] = plain_value(value)
    return nested


_IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")  # every configuration takes them, and keeps them under another name


def _require_key(holder: Any, key: str, dotted: str) -> None:
    if isinstance(holder, Mapping):
        return  # free-form values such as rope_parameters take any key
    if not isinstance(holder, PretrainedConfig):
        raise InspectionError(f"{dotted}: {key!r} lies inside a plain value, not a configuration")
    known = _keys(holder)
    if key not in known and key not in _IMPLEMENTATIONS and not hasattr(holder, key):
        nested = [
            f"{name}.{key}"
            for name in sorted(known)
            if isinstance(child := getattr(holder, name, None), PretrainedConfig) and key in _keys(child)
        ]
        hint = f"; did you mean {' or '.join(nested)}?" if nested else did_you_mean(key, known)
        raise InspectionError(f"{dotted}: the configuration of {holder.model_type} has no {key!r}{hint}")


def _keys(config: PretrainedConfig) -> set[str]:
    return {*(key for key in vars(config) if not key.startswith("_")), *config.attribute_map}


def _item(holder: Any, key: str) -> Any:
    return holder.get(key, {}) if isinstance(holder, Mapping) else getattr(holder, key)


def _merged(config: PretrainedConfig, data: Mapping[str, Any], nested: Mapping[str, Any]) -> dict[str, Any]:
    """The values to build from: `data` with `nested` laid over it, lists with one entry per layer kept in step."""
    merged = dict(data)
    for key, value in nested.items():
        current = vars(config).get(config.attribute_map.get(key, key))  # not getattr: values that differ by layer refuse to be read as one
        if isinstance(value, dict) and isinstance(current, PretrainedConfig):
            given = data.get(key)
            merged[key] = _merged(current, given if isinstance(given, Mapping) else _distinctive(current), value)
        elif isinstance(value, dict) and isinstance(current, dict):
            merged[key] = {**current, **value}
        else:
            for spelling in _spellings(config, key):  # num_hidden_layers and n_layer are one value: the user's must be the only one
                merged.pop(spelling, None)
            for name in _COUNTED_BY.get(key, ()):
                merged.pop(name, None)
            merged[key] = value
            if "layer" in key and isinstance(value, int) and isinstance(current, int):
                _keep_in_step(merged, current, value, nested)
    return merged


def _spellings(config: PretrainedConfig, key: str) -> set[str]:
    name = config.attribute_map.get(key, key)
    return {name, *(alias for alias, stands_for in config.attribute_map.items() if stands_for == name)}


def _distinctive(config: PretrainedConfig) -> dict[str, Any]:
    """What makes a sub-configuration differ from the defaults of its class; the rest is derived anew."""
    default = type(config)()
    values = {key: value for key, value in vars(config).items() if not key.startswith("_") and value != vars(default).get(key)}
    nested = {key: _distinctive(value) if isinstance(value, PretrainedConfig) else value for key, value in values.items()}
    return {**nested, "model_type": config.model_type}


def _keep_in_step(values: dict[str, Any], old: int, new: int, overridden: Iterable[str]) -> None:
    """Cut or repeat values that hold one entry per layer (layer_types, window sizes) when the number of layers changes."""
    for key, value in values.items():
        if key in overridden:
            continue
        if isinstance(value, list) and len(value) == old > 0:
            values[key] = [value[index % old] for index in range(new)]
        elif isinstance(value, dict) and value and all(str(index).isdecimal() for index in value):
            values[key] = {index: entry for index, entry in value.items() if int(index) < new}


def _type_of_architecture(architectures: list[str] | None) -> str | None:
    """The model type of a class name: some old config files name only the class."""
    import transformers

    for name in architectures or ():
        config_class = getattr(getattr(transformers, name, None), "config_class", None)
        if config_class is not None:
            return str(config_class.model_type)
    return None


def _create(config_class: type[PretrainedConfig], values: Mapping[str, Any], what: str) -> PretrainedConfig:
    require_sizes(values, what)
    try:
        with quiet():
            return config_class.from_dict(dict(values))
    except Exception as error:  # config classes validate in many ways, and raise as many errors
        raise InspectionError(f"transformers refuses the configuration of {what}: {_summary(error)}") from error


def _summary(error: Exception) -> str:
    """The first line of an error; where that only announces the reason, with the reason."""
    said = text_of(error).removeprefix(f"{type(error).__name__}: ")
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
