"""In what two modules differ, in words. What tells two shapes apart in `nodes` is said here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from peft_inspect.formats.tree.nodes import Node, relative, saved_copies
from peft_inspect.records import AdapterLayerInfo, ParameterInfo


def differences(node: Node, other: Node, place: str = "") -> Iterator[tuple[str, str]]:
    """Pairs of a path below the module and a phrase. Below a module of another class there is nothing to compare."""
    if node.shape == other.shape >= 0:
        return
    own = list(_sharing(node, other))
    node, other = (_apart(of) for of in (node, other))
    own = [*own_differences(node, other), *own]
    yield from ((place, phrase) for phrase in own)
    if node.alias_of or other.alias_of or node.module.type != other.module.type or bool(node.layers) != bool(other.layers):
        return  # also where only one is in modules_to_save: it has the class of its wrapper
    if node.module.training != other.module.training:  # said once, for the module that was switched
        other = switched(other)
    children, others = ({child.name: child for child in of.children} for of in (node, other))
    explained = bool(own and node.layers)  # the factors and the base layer of an adapter layer differ as it does itself
    for name, child in children.items():
        inner = f"{place}.{name}" if place else name
        if name not in others:
            yield inner, "only here"
        elif not explained or (name == "base_layer" and child.children):
            yield from differences(child, others[name], inner)
    yield from ((f"{place}.{name}" if place else name, "not here") for name in others if name not in children)


def own_differences(node: Node, other: Node) -> Iterator[str]:
    """What differs in the module itself; of an adapter layer, in its base layer and in the adapters on it."""
    if node.alias_of or other.alias_of:
        if (node.alias_of and relative(node.alias_of, node.path)) != (other.alias_of and relative(other.alias_of, other.path)):
            yield f"the same object as {node.alias_of}" if node.alias_of else "an object of its own"
        return
    leaf, other_leaf = as_leaf(node), as_leaf(other)
    if leaf.module.type != other_leaf.module.type:
        yield f"{leaf.module.type} instead of {other_leaf.module.type}"
    if node.module.training != other.module.training:
        yield f"in {'train' if node.module.training else 'eval'} mode"
    if node.flags != other.flags:
        ours, theirs = ({code for code, _ in of.flags} for of in (node, other))
        yield from (f"flagged {code}" for code in sorted(ours - theirs))
        yield from (f"not flagged {code}" for code in sorted(theirs - ours))
    yield from _of_layers(node, other)
    copies, other_copies = saved_copies(node), saved_copies(other)
    yield from (f"with modules_to_save of {name}" for name in copies if name not in other_copies)
    yield from (f"without modules_to_save of {name}" for name in other_copies if name not in copies)
    yield from _of_parameters(leaf.parameters, other_leaf.parameters)
    if _places(node.ties, node.path).keys() != _places(other.ties, other.path).keys():
        yield f"tied to {', '.join(node.ties)}" if node.ties else "not tied"
    if node.said != other.said or node.change != other.change:
        yield f"now {node.said}" if node.said else node.change or f"not {other.change or 'changed'}"


def as_leaf(node: Node) -> Node:
    """An adapter layer as its base layer with adapters on it, so that it compares with one that has none."""
    if not node.layers:
        return _original(node)
    base = next((inner for inner in node.walk() if inner.path == node.layers[0].base_path), node)
    module = replace(node.module, type=node.layers[0].base_type, aliases=())
    return replace(node, module=module, children=[], parameters=base.parameters, layers=node.all_layers())


def _original(node: Node) -> Node:
    """A module in `modules_to_save` as the module that it was before, whose copies are told beside it; any other as it is."""
    original = next((child for child in node.children if child.name == "original_module"), None)
    if original is None or not saved_copies(node):
        return node
    module = replace(node.module, type=original.module.type, aliases=())
    return replace(node, module=module, children=original.children, parameters=original.parameters)


def switched(node: Node) -> Node:
    """A copy in the other mode, with everything below whose mode is the same."""
    mode = node.module.training
    children = [switched(child) if child.module.training is mode else child for child in node.children]
    return replace(node, module=replace(node.module, training=not mode), children=children, shape=-1)


def _sharing(node: Node, other: Node) -> Iterator[str]:
    """At what further paths the one is found and the other is not."""
    ours, theirs = (_places(of.module.aliases, of.path) for of in (node, other))
    if more := [alias for place, alias in ours.items() if place not in theirs]:
        yield f"also at {', '.join(more)}"
    elif ours.keys() != theirs.keys():
        yield "not shared"


def _apart(node: Node, paths: tuple[str, ...] = ()) -> Node:
    """A copy without the further paths that follow from those of the module itself: its parameters and children are found there too."""
    paths = paths or tuple(f"{alias}." for alias in node.module.aliases)
    if not paths:
        return node
    module = replace(node.module, aliases=_beyond(node.module.aliases, paths))
    parameters = [replace(parameter, aliases=_beyond(parameter.aliases, paths)) for parameter in node.parameters]
    return replace(node, module=module, parameters=parameters, children=[_apart(child, paths) for child in node.children], shape=-1)


def _beyond(aliases: Sequence[str], paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(alias for alias in aliases if not alias.startswith(paths))


def _places(paths: Sequence[str], origin: str) -> Mapping[tuple[int, str], str]:
    """The paths as seen from `origin`, equal for alike places in two blocks, with or without adapters there."""
    return {relative(path.replace(".base_layer.", "."), origin.replace(".base_layer", "")): path for path in paths}


_LAYER_FIELDS = ("tuner", "type", "r", "lora_alpha", "scaling", "dtype", "copy_of")
_LAYER_STATES = (("active", "inactive"), ("merged", "not merged"), ("enabled", "disabled"))


def _of_layers(node: Node, other: Node) -> Iterator[str]:
    """What differs in the adapters; each is called by its name where there are several."""
    ours, theirs = (_by_key(of) for of in (node, other))
    several = len(ours.keys() | theirs.keys()) > 1
    for key, layer in ours.items():
        if key not in theirs:
            yield f"with adapter {layer.adapter}"
            continue
        name = f"{layer.parameter_name or layer.adapter} " if several else ""
        yield from (f"{name}{phrase}" for phrase in _of_layer(layer, theirs[key]))
        if _trains(layer, node) != _trains(theirs[key], other):
            yield f"{name}{'trainable' if _trains(layer, node) else 'frozen'}"
    yield from (f"without adapter {layer.adapter}" for key, layer in theirs.items() if key not in ours)


def _by_key(node: Node) -> Mapping[tuple[str, str | None], AdapterLayerInfo]:
    return {(layer.adapter, layer.parameter_name): layer for layer in (node.all_layers() if node.layers else ())}


def _of_layer(layer: AdapterLayerInfo, other: AdapterLayerInfo) -> Iterator[str]:
    for name in _LAYER_FIELDS:
        if getattr(layer, name) != getattr(other, name):
            yield f"{name} {getattr(layer, name)} instead of {getattr(other, name)}"
    for name, negated in _LAYER_STATES:
        if getattr(layer, name) != getattr(other, name):
            yield name if getattr(layer, name) else negated
    for name in sorted({*layer.details, *other.details}):
        if layer.details.get(name) != other.details.get(name):
            yield f"{name} {layer.details.get(name)} instead of {other.details.get(name)}"


def _trains(layer: AdapterLayerInfo, node: Node) -> bool:
    """Whether any of its weights below `node` requires grad."""
    weights = {parameter.path: parameter for inner in node.walk() for parameter in inner.parameters}
    return any(weights[path].requires_grad for path in layer.parameters if path in weights)


def _of_parameters(parameters: Sequence[ParameterInfo], others: Sequence[ParameterInfo]) -> Iterator[str]:
    ours, theirs = ({parameter.path.rpartition(".")[2]: parameter for parameter in of} for of in (parameters, others))
    alike: dict[str, list[str]] = {}
    for name, parameter in ours.items():
        for phrase in _of_parameter(parameter, theirs[name]) if name in theirs else ("added",):
            alike.setdefault(phrase, []).append(name)
    yield from (f"{' and '.join(names)} {phrase}" for phrase, names in alike.items())
    yield from (f"no {name}" for name in theirs if name not in ours)


def _of_parameter(parameter: ParameterInfo, other: ParameterInfo) -> Iterator[str]:
    if parameter.shape != other.shape:
        yield f"{'×'.join(map(str, parameter.shape))} instead of {'×'.join(map(str, other.shape))}"
    if parameter.requires_grad != other.requires_grad:
        yield "trainable" if parameter.requires_grad else "frozen"
    kept, others_kept = (f"{of.dtype} on {of.device}{f' in {of.quantization}' if of.quantization else ''}" for of in (parameter, other))
    if kept != others_kept:
        yield f"{kept} instead of {others_kept}"
    ties, others_ties = (_places(of.aliases, of.path) for of in (parameter, other))
    if ties.keys() != others_ties.keys():
        yield f"tied to {', '.join(ties.values())}" if ties else "not tied"
