"""Why PEFT rejects a config for a model, and a config that it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from peft_inspect.internals import find
from peft_inspect.layer_names import ending_of, other_work, same_work
from peft_inspect.load.lora.adaptable import Adaptable, distinct, last
from peft_inspect.load.lora.whole_path import whole_path
from peft_inspect.load.words import closest, listed, spans
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    import torch

_DROPPING = ("layers_pattern", "layers_to_transform", "exclude_modules", "modules_to_save")
_SPELLING = 0.85


def rejection(model: torch.nn.Module, fields: Mapping[str, Any], config: Any, error: Exception) -> InspectionError:
    """The error that explains PEFT's own.

    Args:
        model: the base model; wrapping may have stopped half-way, so some of its layers may be adapter layers.
        fields: what was asked for.
        config: the PEFT config as PEFT left it, with shorthands resolved.
        error: what PEFT raised.
    """
    base = Adaptable(model, config)
    default = getattr(config, "target_modules", None)
    if not fields.get("target_modules") and default:  # left open, and filled in by PEFT with what it has for the model type
        fields = {**fields, "target_modules": default if isinstance(default, str) else sorted(default)}
    unsupported = [path for path in base.matched() if not base.takes_adapter(path)]
    if refused := base.refused():
        message = _of_refused(base, fields, refused)
    elif not fields.get("target_modules") and not fields.get("target_parameters"):
        message = _of_nothing_asked(base)
    elif _nothing_matches(base, error):
        message = _of_no_match(base, fields)
    elif unsupported and "support" in str(error):
        message = _of_unsupported(base, fields, unsupported)
    elif fields.get("lora_dropout") and "lora_dropout" in str(error):
        message = _of_dropout(base, fields)
    elif "Cannot convert PEFT target" in str(error):
        message = _of_half_fused(base, fields, str(error))
    elif isinstance(error, IndexError) and fields.get("trainable_token_indices"):
        message = _of_tokens(base, fields)
    elif "modules_to_save cannot be applied" in str(error):
        message = _of_saved_target(base, fields)
    else:
        message = _of_class(base, fields, error)
    return InspectionError(message)


def _of_refused(base: Adaptable, fields: Mapping[str, Any], refused: list[str]) -> str:
    example = next(path for path in base.modules if last(path) in refused)
    asked = fields.get("target_modules")
    alive = [entry for entry in asked if last(entry) not in base.dead] if isinstance(asked, list | tuple | set) else []
    return (
        f"{base.name} passes the weights of {', '.join(map(repr, refused))} to a fused kernel ({example}, for one), "
        "so an adapter there would never run and PEFT refuses it. "
        f"{_works(target_modules=alive or base.linear_names())}"
    )


def _of_nothing_asked(base: Adaptable) -> str:
    names = base.linear_names()
    if not names:
        return _of_no_linear(base)
    return f"PEFT has no default target_modules for {base.name}: say which, or --target-modules all-linear. {_works(target_modules=names)}"


def _nothing_matches(base: Adaptable, error: Exception) -> bool:
    kind = find("NoMatchingPeftModuleError")
    return isinstance(error, kind) if kind else isinstance(error, ValueError) and not base.matched()


def _of_no_match(base: Adaptable, fields: Mapping[str, Any]) -> str:
    asked, names = fields.get("target_modules"), base.linear_names()
    if not asked:
        parameters = fields.get("target_parameters")
        return _of_no_parameter(base, parameters) if parameters else _of_nothing_asked(base)
    if not names:
        return _of_no_linear(base)
    entries = [asked] if isinstance(asked, str) else sorted(asked)
    if reached := base.matched(**dict.fromkeys(_DROPPING)):
        return _of_dropped(base, fields, reached)
    if isinstance(asked, str):
        return _of_pattern(base, asked, names)
    kind = f"is called {' or '.join(map(repr, entries))}"
    near = distinct(name for entry in entries for name in _meant(base, entry, names))
    return f"no module of {base.name} {kind}: its linear layers are called {listed(names, 12)}. {_works(target_modules=near or names)}"


def _of_dropped(base: Adaptable, fields: Mapping[str, Any], reached: list[str]) -> str:
    """The targets exist, and other fields leave none of them."""
    limits = {name: fields[name] for name in _DROPPING if fields.get(name)}
    shown = " and ".join(f"{name}={_shown(value)}" for name, value in limits.items())
    return (
        f"all {len(reached)} modules that target_modules={_shown(fields['target_modules'])} reaches in {base.name} ({reached[0]}, for one) "
        f"are dropped by {shown}: nothing is left to adapt. {_undropped(base, fields, limits, reached)}"
    )


def _undropped(base: Adaptable, fields: Mapping[str, Any], limits: Mapping[str, Any], reached: list[str]) -> str:
    """What to do about the limits: the first of them without which something is left has to change, else all of them have to go."""
    works = f"A config that works: target_modules={_shown(fields['target_modules'])}"
    lists = base.lists_of(reached)
    if "layers_to_transform" in limits and base.matched(layers_pattern=lists):  # PEFT did not look into the lists that were meant
        return f"{works}, layers_to_transform={_shown(limits['layers_to_transform'])}, layers_pattern={_shown(lists)}"
    guilty = next((name for name in limits if base.matched(**{name: None})), None)
    if guilty == "layers_to_transform":
        return f"{works} without layers_to_transform, or with indices of layers that have such modules: {spans(base.layers_of(reached))}"
    return f"{works} without {guilty or ' and '.join(limits)}"


def _of_pattern(base: Adaptable, pattern: str, names: list[str]) -> str:
    """A regular expression that reaches nothing: most often it begins in the middle of the paths, or with those of another version."""
    if called := [path for path in base.modules if path == pattern or path.endswith(f".{pattern}")]:
        return (
            f"target_modules={_shown(pattern)} is a regular expression, since it is no list, and matches no whole path of {base.name} "
            f"({called[0]}, for one). {_works(target_modules=[pattern])}"
        )
    missed = f"no module of {base.name} matches the regular expression {pattern!r}"
    adaptable = [path for path in base.modules if base.takes_adapter(path) and last(path) not in base.dead]
    if meant := whole_path(pattern, adaptable, base.language_model()):
        example = next(path for path in adaptable if re.fullmatch(meant, path))
        return f"{missed}, which has to match whole module paths, as {example}. A config that works: target_modules={json.dumps(meant)}"
    near = [name for name in closest(last(pattern), names, limit=1, cutoff=_SPELLING) if not other_work(last(pattern), name)]
    return f"{missed}: its linear layers are called {listed(names, 12)}. {_works(target_modules=near or names)}"


def _meant(base: Adaptable, entry: str, names: list[str]) -> list[str]:
    """Where a path begins wrongly, its end; the layers that do the work of the entry; else a slip of the pen.

    The last must mean the same: q_proj is near c_proj, which is another layer.
    """
    if end := ending_of(entry, filter(base.takes_adapter, base.modules)):
        return [end]
    others = distinct(last(path) for path in base.modules if base.takes_adapter(path) and last(path) not in base.dead)
    spelt = closest(last(entry), others, limit=1, cutoff=_SPELLING)
    return same_work(entry, names) or [name for name in spelt if not other_work(last(entry), name)]


def _of_no_parameter(base: Adaptable, asked: Iterable[str]) -> str:
    known = [".".join(path.split(".")[-3:]) for path, parameter in base.model.named_parameters() if parameter.ndim == 3]
    near = distinct(name for entry in asked for name in closest(entry, known))
    works = _works(target_parameters=near) if near else _works(target_modules=base.linear_names())
    return f"no parameter of {base.name} ends in {' or '.join(map(repr, asked))}. {works}"


def _of_no_linear(base: Adaptable) -> str:
    experts = distinct(entry for path in base.modules for entry in base.expert_parameters(path))
    works = _works(target_parameters=experts) if experts else _works(target_modules=base.convolution_names())
    return f"{base.name} has no linear layer that an adapter could go on. {works}".rstrip()


def _of_unsupported(base: Adaptable, fields: Mapping[str, Any], unsupported: list[str]) -> str:
    path = unsupported[0]
    kind, why = type(base.modules[path]).__name__, base.unsupported(path)
    bad = {last(name) for name in base.modules if not base.takes_adapter(name)}
    if fields.get("target_modules") == "all-linear":  # PEFT shortens the paths it found, and some endings fit other modules too
        names = [name for name in base.linear_names() if name not in bad]
        reached = f"PEFT's own list for all-linear reaches {path} of {base.name}, a {kind}, which is no linear layer."
        return f"{reached} {_works(target_modules=names)}"
    good = distinct(last(name) for name in base.matched() if base.takes_adapter(name) and last(name) not in bad)
    experts = base.expert_parameters(path)
    names = [*good, *base.linear_names_below(path)] or ([] if experts else base.linear_names())
    return (
        f"target_modules={_shown(fields.get('target_modules'))} reaches {path}, a {kind}, which PEFT cannot adapt: it {why}. "
        f"{_works(target_modules=names, target_parameters=experts)}"
    )


def _of_dropout(base: Adaptable, fields: Mapping[str, Any]) -> str:
    """Raw parameters, which can have no dropout: named as such, or the experts that PEFT finds under the names of their old layers."""
    asked, dropout = fields.get("target_modules") or [], fields["lora_dropout"]
    works = f"{_works(target_modules=asked, target_parameters=fields.get('target_parameters') or [])}, lora_dropout=0.0"
    if fields.get("target_parameters"):
        return f"PEFT has no dropout for target_parameters, and lora_dropout is {dropout}. {works}"
    fused = _fused_names(base.model)
    entries = [asked] if isinstance(asked, str) else asked
    turned = [entry for entry in entries if last(entry) in fused]
    others = [entry for entry in entries if entry not in turned] if turned else [name for name in base.linear_names() if name not in fused]
    experts = distinct(entry for path in base.modules for entry in base.expert_parameters(path))
    without = f"; or without the experts, and with the dropout: target_modules={json.dumps(others)}" if others else ""
    return (
        f"the experts of {base.name} are fused parameters here ({', '.join(experts)}), which PEFT puts in the place of "
        f"{' and '.join(map(repr, turned or entries))} and for which it has no dropout, while lora_dropout is {dropout}. {works}{without}"
    )


def _fused_names(model: Any) -> Mapping[str, str]:
    """Old layer name → the fused parameter that PEFT takes for it, for model types whose configs it rewrites."""
    patterns, targets = find("conversion_patterns") or {}, find("fused_targets") or {}
    names: Mapping[str, str] = targets.get(patterns.get(getattr(model.config, "model_type", "")), {})
    return names


def _of_half_fused(base: Adaptable, fields: Mapping[str, Any], error: str) -> str:
    """One of two layers that are one parameter of the experts now."""
    fused = set(re.findall(r"\w+", error))
    names = [name for name in distinct(last(path) for path in base.matched()) if name in base.linear_names() and name not in fused]
    experts = distinct(entry for path in base.modules for entry in base.expert_parameters(path))
    return (
        f"target_modules={_shown(fields.get('target_modules'))} names one of two layers that the experts of {base.name} hold as one "
        f"parameter, and PEFT adapts them together or not at all: {error} {_works(target_modules=names, target_parameters=experts)}"
    )


def _of_tokens(base: Adaptable, fields: Mapping[str, Any]) -> str:
    """Token ids behind the end of the embedding."""
    asked = fields["trainable_token_indices"]
    embedding: Any = base.model.get_input_embeddings()  # type: ignore[operator]
    rows = embedding.weight.shape[0]
    ids = [index for indices in (asked.values() if isinstance(asked, Mapping) else [asked]) for index in indices]
    beyond = [index for index in ids if not 0 <= index < rows]
    return (
        f"trainable_token_indices names {spans(beyond)}, and the embedding of {base.name} has {rows} rows, 0–{rows - 1}: resize it before "
        "the wrapping, with model.resize_token_embeddings or --config-set vocab_size=N, or name tokens that exist"
    )


def _of_saved_target(base: Adaptable, fields: Mapping[str, Any]) -> str:
    """A layer that is to be adapted and to be trained in full: by the user's wish, or as the head of the task."""
    saved = {last(str(name)) for name in fields.get("modules_to_save") or ()}
    heads = {path for path in base.modules if "." not in path}
    why = f"modules_to_save={_shown(saved)}" if saved else f"task_type={fields.get('task_type')} does so with the head"
    works = _works(target_modules=[name for name in base.linear_names() if name not in saved | heads])
    return (
        f"target_modules={_shown(fields.get('target_modules'))} reaches a layer of {base.name} that is to be trained in full "
        f"as well ({why}): it can only be one of both. {works}"
    )


def _of_class(base: Adaptable, fields: Mapping[str, Any], error: Exception) -> str:
    """What lies in the model's class rather than in its layers."""
    if isinstance(error, NotImplementedError) and "embeddings" in str(error):
        return (
            f"PEFT asks every model for its input embeddings, and {base.name} does not say which they are: build it in a callable "
            "of your own, as train.py:build_model, where get_input_embeddings is defined on a subclass, or wrap a part of it"
        )
    task = fields.get("task_type")
    if task and isinstance(error, AttributeError) and isinstance(error.obj, type(base.model)):
        return f"task_type={task} asks for what {base.name} does not have ({error}): leave task_type out, or name a model for that task"
    return f"PEFT rejects this {fields['peft_type']} config for {base.name}: {error or type(error).__name__}"


def _works(**settings: list[str] | str) -> str:
    shown = ", ".join(f"{name}={json.dumps(values)}" for name, values in settings.items() if values)
    return f"A config that works: {shown}" if shown else ""


def _shown(value: Any) -> str:
    return json.dumps(sorted(value) if isinstance(value, set) else value, default=str)
