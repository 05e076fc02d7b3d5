"""The flat rows of a Structure as a tree of modules, with sums, and with a shape that tells equal subtrees from different ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from peft_inspect.formats.names import Interned
from peft_inspect.records import Activation, AdapterLayerInfo, Finding, ModuleInfo, ParameterInfo, Severity, Structure

Flag = tuple[str, Severity]  # the code of a finding, and how much it matters


@dataclass
class Node:
    """One module, or a second path to a module that is shown elsewhere (`alias_of`). Sums include everything below."""

    name: str  # attribute name within its parent
    module: ModuleInfo
    alias_of: str | None = None
    children: list[Node] = field(default_factory=list)
    parameters: list[ParameterInfo] = field(default_factory=list)  # registered by this module itself
    layers: list[AdapterLayerInfo] = field(default_factory=list)  # adapter rows of this module itself
    flags: tuple[Flag, ...] = ()
    ties: tuple[str, ...] = ()  # paths of parameters elsewhere that this module's own are tied to
    activation: Activation | None = None  # what one forward gave, where that was asked for
    total: int = 0
    trainable: int = 0
    nbytes: int = 0
    change: str = ""  # where two models are compared: added, removed, changed
    said: str = ""  # what changed
    shape: int = -1  # equal for subtrees that differ in nothing

    @property
    def path(self) -> str:
        """The path under which it is shown."""
        return self.module.path

    def walk(self) -> Iterator[Node]:
        """This node and all below, parents first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def all_layers(self) -> list[AdapterLayerInfo]:
        """The adapter rows of this module and of everything below."""
        return [layer for node in self.walk() for layer in node.layers]

    def all_flags(self) -> tuple[Flag, ...]:
        """The flags of this module and of everything below, most severe first."""
        flags = {flag for node in self.walk() for flag in node.flags}
        return tuple(sorted(flags, key=lambda flag: (flag[1].rank, flag[0])))


def build(structure: Structure, findings: Iterable[Finding] = ()) -> Node:
    """The tree of all modules. The root's sums equal the totals over the model's parameters: shared tensors count once."""
    nodes = {module.path: Node(module.path.rpartition(".")[2], module) for module in structure.modules}
    root = nodes.setdefault("", Node("", ModuleInfo("", structure.root_type, "container", training=structure.mode == "train")))
    for path, node in list(nodes.items()):
        if path:
            nodes.get(path.rpartition(".")[0], root).children.append(node)
    _add_aliases(nodes, structure)
    _add_parameters(nodes, structure)
    for layer in structure.adapter_layers:
        nodes[layer.path].layers.append(layer)
    _add_flags(nodes, findings)
    for path, activation in structure.activations.items():
        nodes[path].activation = activation
    seal(root)
    return root


def _add_aliases(nodes: Mapping[str, Node], structure: Structure) -> None:
    """A node for each second path to a module, where the way to it is not itself a second path."""
    for module in structure.modules:
        for alias in module.aliases:
            parent, _, name = alias.rpartition(".")
            if parent in nodes and all(child.name != name for child in nodes[parent].children):
                shown = replace(module, path=alias, aliases=())
                nodes[parent].children.append(Node(name, shown, alias_of=module.path))


def _add_parameters(nodes: Mapping[str, Node], structure: Structure) -> None:
    for parameter in structure.parameters:
        nodes[parameter.module].parameters.append(parameter)
        for alias in parameter.aliases:
            module = alias.rpartition(".")[0]
            if module in nodes:
                nodes[module].ties = (*nodes[module].ties, parameter.path)


def _add_flags(nodes: Mapping[str, Node], findings: Iterable[Finding]) -> None:
    flags: dict[str, dict[Flag, None]] = {}
    for finding in findings:
        for path in finding.modules:
            flags.setdefault(path, {})[finding.code, finding.severity] = None
    for path, of_path in flags.items():
        if path in nodes:
            nodes[path].flags = tuple(of_path)


def seal(root: Node) -> None:
    """Compute sums and shapes from the leaves up."""
    for node in reversed(list(root.walk())):
        node.total = sum(parameter.numel for parameter in node.parameters) + sum(child.total for child in node.children)
        node.trainable = sum(p.numel for p in node.parameters if p.requires_grad) + sum(child.trainable for child in node.children)
        node.nbytes = sum(parameter.nbytes for parameter in node.parameters) + sum(child.nbytes for child in node.children)
    reshape(root)


def reshape(root: Node) -> None:
    """Compute the shapes alone, as for a tree in which something is left out."""
    shapes = Interned()
    for node in reversed(list(root.walk())):
        node.shape = shapes.of((own_shape(node), tuple((child.name, child.shape) for child in node.children)))


def own_shape(node: Node) -> tuple[Any, ...]:
    """Everything about a module itself, apart from its place, in which two blocks can differ."""
    return (
        (node.change, node.said, node.activation),
        node.module.type,
        node.module.training,
        tuple(_parameter_shape(parameter) for parameter in node.parameters),
        tuple(_layer_shape(layer) for layer in node.layers),
        node.flags,
        node.alias_of and relative(node.alias_of, node.path),
        tuple(relative(alias, node.path) for alias in node.module.aliases),
        tuple(relative(tie, node.path) for tie in node.ties),
    )


def _parameter_shape(parameter: ParameterInfo) -> tuple[Any, ...]:
    name = parameter.path.rpartition(".")[2]
    ties = tuple(relative(alias, parameter.path) for alias in parameter.aliases)
    return (
        name,
        parameter.shape,
        parameter.dtype,
        parameter.device,
        parameter.requires_grad,
        parameter.adapter,
        parameter.quantization,
        ties,
    )


def _layer_shape(layer: AdapterLayerInfo) -> tuple[Any, ...]:
    state = (
        layer.active,
        layer.merged,
        layer.enabled,
        layer.parameter_name,
        layer.copy_of,
        layer.dtype,
        repr(sorted(layer.details.items())),
    )
    return (layer.adapter, layer.tuner, layer.type, layer.base_type, layer.r, layer.lora_alpha, layer.scaling, *state)


def saved_copies(node: Node) -> tuple[str, ...]:
    """The adapters that keep a trained copy of this module in `modules_to_save`."""
    names = {child.name: child for child in node.children}
    if "original_module" not in names or "modules_to_save" not in names:
        return ()
    return tuple(child.name for child in names["modules_to_save"].children)


def relative(path: str, origin: str) -> tuple[int, str]:
    """`path` as seen from `origin`: how many levels up, and the way down from there. Equal for alike places in two blocks."""
    names, here = path.split("."), origin.split(".")
    shared = next((at for at, (a, b) in enumerate(zip(names, here, strict=False)) if a != b), min(len(names), len(here)))
    return len(here) - shared, ".".join(names[shared:])


def matched(root: Node, glob: str) -> Node | None:
    """The tree of the modules whose path, or the end of it, matches; None when none does."""
    found = pruned(root, lambda node: bool(node.path) and (fnmatchcase(node.path, glob) or fnmatchcase(node.path, f"*.{glob}")))
    if found is not None:
        reshape(found)
    return found


def pruned(root: Node, keep: Callable[[Node], bool]) -> Node | None:
    """A copy with only the nodes that `keep` accepts, all below them, and the way to them. Sums stay those of the whole."""
    if keep(root):
        return root
    children = [child for child in (pruned(child, keep) for child in root.children) if child is not None]
    return replace(root, children=children) if children else None
