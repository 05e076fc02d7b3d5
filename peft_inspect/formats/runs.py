"""Folding: the children of a list of modules in groups of equal ones, and what sets each group apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from peft_inspect.formats.names import fold, is_index, ranges
from peft_inspect.formats.nodes import Node
from peft_inspect.records import AdapterLayerInfo, ParameterInfo


@dataclass(frozen=True)
class Run:
    """Children that differ in nothing but their index; adjacent or not. A single child is a run of one."""

    nodes: tuple[Node, ...]
    like: Run | None = None  # the group it is compared with, the first of its list that has the same class

    @property
    def first(self) -> Node:
        """The one that stands for all."""
        return self.nodes[0]

    def label(self, dash: str = "–") -> str:
        """`0–4,6–10`, or the name of a single child."""
        return ranges((int(node.name) for node in self.nodes), dash) if is_index(self.first.name) else self.first.name


def runs(children: Sequence[Node]) -> Iterator[Run]:
    """The children in order, equal ones among those with an index in one run."""
    alike: dict[int, list[Node]] = {}
    for child in children:
        if is_index(child.name):
            alike.setdefault(child.shape, []).append(child)
    first_of: dict[str, Run] = {}
    done: set[int] = set()
    for child in children:
        if not is_index(child.name):
            yield Run((child,))
        elif child.shape not in done:
            done.add(child.shape)
            like = first_of.get(child.module.type) if child.children and not child.layers else None
            run = Run(tuple(alike[child.shape]), like)
            first_of.setdefault(child.module.type, run)
            yield run


def said_differences(node: Node, other: Node) -> list[str]:
    """What differs in `node` as compared with `other`, as phrases: `self_attn.{q_proj,v_proj}: r 16 instead of 8`."""
    by_place: dict[str, list[str]] = {}
    for place, phrase in _differences(node, other, ""):
        by_place.setdefault(place, []).append(phrase)
    alike: dict[tuple[str, ...], list[str]] = {}
    for place, phrases in by_place.items():
        alike.setdefault(tuple(phrases), []).append(place)
    said = []
    for alike_phrases, places in alike.items():
        phrase = ", ".join(alike_phrases)
        said += [phrase] if "" in places else []
        said += [f"{place}: {phrase}" for place in fold(filter(None, places))]
    return said


def _differences(node: Node, other: Node, place: str) -> Iterator[tuple[str, str]]:
    """Pairs of a path below the block and a phrase. Below a module of another class there is nothing to compare."""
    if node.shape == other.shape >= 0:
        return
    if bool(node.layers) != bool(other.layers):
        node, other = as_leaf(node), as_leaf(other)
    own = list(own_differences(node, other))
    yield from ((place, phrase) for phrase in own)
    if node.module.type != other.module.type:
        return
    if node.module.training != other.module.training:  # said once, for the module that was switched
        other = switched(other)
    children, others = ({child.name: child for child in of.children} for of in (node, other))
    explained = bool(own and node.layers and other.layers)  # the factors of an adapter layer differ as the layer does
    for name, child in children.items():
        inner = f"{place}.{name}" if place else name
        if name not in others:
            yield inner, "added"
        elif not explained or name == "base_layer":
            yield from _differences(child, others[name], inner)
    yield from ((f"{place}.{name}" if place else name, "missing") for name in others if name not in children)


def as_leaf(node: Node) -> Node:
    """An adapter layer as its base layer with adapters on it, so that it compares with one that has none."""
    if not node.layers:
        return node
    base = next((inner for inner in node.walk() if inner.path == node.layers[0].base_path), node)
    module = replace(node.module, type=node.layers[0].base_type, aliases=())
    return replace(node, module=module, children=[], parameters=base.parameters, layers=node.all_layers())


def switched(node: Node) -> Node:
    """A copy in the other mode, with everything below whose mode is the same."""
    mode = node.module.training
    children = [switched(child) if child.module.training is mode else child for child in node.children]
    return replace(node, module=replace(node.module, training=not mode), children=children, shape=-1)


def own_differences(node: Node, other: Node) -> Iterator[str]:
    """What differs in the module itself."""
    if node.module.type != other.module.type:
        yield f"{node.module.type} instead of {other.module.type}"
    if node.said != other.said or node.change != other.change:
        yield f"now {node.said}" if node.said else node.change or f"not {other.change or 'changed'}"
    if node.module.training != other.module.training:
        yield f"in {'train' if node.module.training else 'eval'} mode"
    if node.flags != other.flags:
        ours, theirs = ({code for code, _ in of.flags} for of in (node, other))
        yield from (f"flagged {code}" for code in sorted(ours - theirs))
        yield from (f"not flagged {code}" for code in sorted(theirs - ours))
    yield from _layer_differences(node.layers, other.layers)
    yield from _parameter_differences(node.parameters, other.parameters)
    if (node.alias_of is None) != (other.alias_of is None) or len(node.ties) != len(other.ties):
        yield "shared differently"


_LAYER_FIELDS = ("tuner", "r", "lora_alpha", "scaling", "dtype", "base_type", "parameter_name")
_LAYER_STATES = (("active", "inactive"), ("merged", "not merged"), ("enabled", "disabled"))


def _layer_differences(layers: Sequence[AdapterLayerInfo], others: Sequence[AdapterLayerInfo]) -> Iterator[str]:
    ours, theirs = ({(layer.adapter, layer.parameter_name): layer for layer in of} for of in (layers, others))
    for key, layer in ours.items():
        if key not in theirs:
            yield f"with adapter {layer.adapter}"
            continue
        other = theirs[key]
        for name in _LAYER_FIELDS:
            if getattr(layer, name) != getattr(other, name):
                yield f"{name} {getattr(layer, name)} instead of {getattr(other, name)}"
        for name, negated in _LAYER_STATES:
            if getattr(layer, name) != getattr(other, name):
                yield name if getattr(layer, name) else negated
        for name in sorted({*layer.details, *other.details}):
            if layer.details.get(name) != other.details.get(name):
                yield f"{name} {layer.details.get(name)} instead of {other.details.get(name)}"
    yield from (f"without adapter {layer.adapter}" for key, layer in theirs.items() if key not in ours)


def _parameter_differences(parameters: Sequence[ParameterInfo], others: Sequence[ParameterInfo]) -> Iterator[str]:
    ours, theirs = ({parameter.path.rpartition(".")[2]: parameter for parameter in of} for of in (parameters, others))
    for name, parameter in ours.items():
        other = theirs.get(name)
        if other is None:
            yield f"{name} added"
        elif parameter.shape != other.shape:
            yield f"{name} {'×'.join(map(str, parameter.shape))} instead of {'×'.join(map(str, other.shape))}"
        elif parameter.requires_grad != other.requires_grad:
            yield f"{name} {'trainable' if parameter.requires_grad else 'frozen'}"
        elif (parameter.dtype, parameter.device, parameter.quantization) != (other.dtype, other.device, other.quantization):
            yield f"{name} {parameter.dtype} on {parameter.device} instead of {other.dtype} on {other.device}"
    yield from (f"no {name}" for name in theirs if name not in ours)
