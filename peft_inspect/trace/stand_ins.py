"""What does the work of a layer that nothing called: a tensor that holds its weights, or that its parent multiplies by in its place.

A copy of weights made before the step, fused with others or by itself, is no object that runs. It is met as an operand that no
operation of the step has made: one that holds the very values of the layer's weight (by itself, stacked, or as a block of a larger
matrix), one of the size that the layer's branch gave when it ran before the step, or, where values tell nothing, the constant by which
the module around the layer multiplies. Asked only of layers that are
dead for want of a call, in one more run.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peft_inspect.internals import schema_of
from peft_inspect.records import StandIn, Subject, Trace
from peft_inspect.run.graph import let_go
from peft_inspect.run.runs import forward, own_copy
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.run.weightless import is_weightless, storage_key
from peft_inspect.structure.source.lines import Line, frames, is_machinery, line_above, nearest_line, source
from peft_inspect.trace.calls import Calls, is_frozen_graph
from peft_inspect.trace.flow import flattened
from peft_inspect.trace.grad_mode import GradSwitches
from peft_inspect.trace.operations import Operations

if TYPE_CHECKING:
    from torch import Tensor

    from peft_inspect.run.changes import Changes
    from peft_inspect.run.layers import AdapterLayers

_PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm", "matmul", "linear", "einsum", "convolution", "embedding", "mv", "dot"})


def replaced_layers(trace: Trace) -> tuple[str, ...]:
    """Dead layers that could have trained and that no call reached, or none that read their adapter; what is explained is left out."""
    known = {path for copy in trace.copies for path in copy.layers} | {call.layer for call in trace.base_calls} | trace.read_outside
    return tuple(
        dict.fromkeys(
            layer.path
            for layer in trace.dead
            if layer.path not in known
            and trace.structure.trainable(layer)
            and not any(
                layer.adapter in call.adapter_used or not call.enabled or call.merged for call in trace.calls_of.get(layer.path, ())
            )
        )
    )


@let_go()
def stand_ins(trace: Trace, wanted: Iterable[str], subject: Subject, layers: AdapterLayers, inputs: Mapping[str, Any]) -> Trace:
    """The trace with what does the work of the wanted layers in one more forward."""
    batch, calls = own_copy(inputs), Calls(layers, GradSwitches())
    given = [value for value in flattened((batch,)) if isinstance(value, torch.Tensor)]
    looking = _Looking(layers, calls, tuple(wanted), {storage_key(tensor) for tensor in given})
    with undisturbed(subject.model) as guard, calls.watching(), Operations(guard, looking) as calls.operations:  # type: ignore[arg-type]
        forward(subject, batch)
    found = tuple(looking.found())
    copied = {path for stand_in in found if stand_in.how == "copy" for path in stand_in.layers}
    return replace(trace, stand_ins=(*looking.stored(trace, copied, subject.changes), *found))


@dataclass
class _Looking:
    """Reads the operands of every operation of a run, as `WeightReads` does."""

    layers: AdapterLayers
    calls: Calls
    wanted: tuple[str, ...]
    made: set[int]  # storages of what the run was given, and of what its operations made
    _alive: list[Any] = field(default_factory=list)  # keeps these from being reused
    _matches: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _equal: dict[str, tuple[Tensor, str, Line | None]] = field(default_factory=dict)
    _beside: dict[str, tuple[Tensor, str, Line | None]] = field(default_factory=dict)
    _unheld: dict[int, tuple[Tensor, str]] = field(default_factory=dict)  # constants that no module registers

    def __post_init__(self) -> None:
        self._own = {storage_key(weight) for path in self.wanted for weight in self._weights(path)}
        registered = (*self.layers.parameters.values(), *(b for m in self.layers.modules.values() for b in m._buffers.values()))
        self._registered = {storage_key(tensor) for tensor in registered if tensor is not None}
        self._around: dict[int, list[str]] = {}
        for path in self.wanted:
            if (parent := _around(path, self.layers.modules)) is not None:
                self._around.setdefault(id(parent), []).append(path)

    def _weights(self, path: str) -> list[Tensor]:
        """The weights of a layer and of its adapter."""
        return [*self.layers.of_path[path].parameters()]

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None, traits: Any, result: Any) -> None:  # noqa: ARG002
        """One operation that is not a view."""
        name = str(schema_of(func).name).rpartition(":")[2]
        for tensor in flattened((args, kwargs or {})):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel() > 1:
                key = storage_key(tensor)
                if key not in self.made and key not in self._own:
                    with suppress(RuntimeError):  # inside vmap nothing can be compared
                        self._constant(tensor, key, name)
        for tensor in flattened((result,)):
            if isinstance(tensor, torch.Tensor):
                self.made.add(storage_key(tensor))
                self._alive.append(tensor.detach())

    def _constant(self, tensor: Tensor, key: int, name: str) -> None:
        inside = self._around.get(self.calls.current or 0, [])
        running = [path for path in self.wanted if path not in self._equal and self.calls.inside(id(self.layers.of_path[path]))]
        if running and (line := _functional_call()) is not None:
            self._equal.update(dict.fromkeys(running, (tensor, "functional_call", line)))
        if key not in self._registered and not tensor.requires_grad:
            self._unheld.setdefault(key, (tensor, name))
        if key not in self._matches:
            self._matches[key] = tuple(self._layers_in(tensor, inside))
            for path in self._matches[key]:
                self._equal.setdefault(path, (tensor, name, nearest_line()))
        if name in _PRODUCTS and tensor.dim() > 1:
            for path in inside:
                self._beside.setdefault(path, (tensor, name, nearest_line()))

    def _layers_in(self, tensor: Tensor, inside: list[str]) -> Iterator[str]:
        for path in self.wanted:
            for weight in self._weights(path):
                # what is one number throughout, as the weights of norms and fresh factors are, is equal to much
                telling = path in inside or not _is_constant(weight)
                if telling and weight.numel() > 1 and _holds(tensor.detach(), weight.detach()):
                    yield path
                    break

    def stored(self, trace: Trace, copied: Collection[str], changes: Changes | None) -> Iterator[StandIn]:
        """Branches that ran before the step alone: as a graph that was made of them, or for a tensor of the size that they give."""
        branches: dict[str, list[str]] = {}
        for path in self.wanted:
            if path not in copied and not trace.calls_of.get(path):
                branches.setdefault(trace.topmost_idle(path), []).append(path)
        for branch, paths in branches.items():
            if (graph := self._graph_of(branch)) is not None:
                what = "a graph that torch.jit has frozen, with these weights as constants"
                yield StandIn(tuple(paths), what, "torch.jit", self.calls.first_source(id(graph)), matrix=False, how="copy")
                continue
            ran = None if changes is None else changes.ran_before(self.layers.modules[branch])
            place, sizes = ran or (None, frozenset[int]())
            used = next((met for met in self._unheld.values() if met[0].shape and met[0].shape[-1] in sizes), None)
            if place is not None and used is not None:
                yield StandIn(tuple(paths), self._words(used[0]), used[1], place, matrix=False, how="output")

    def _graph_of(self, branch: str) -> nn.Module | None:
        """What ran as a graph that was made of this branch or of a module in it."""
        kinds = {type(inside).__name__ for inside in self.layers.modules[branch].modules()}
        graphs = (ran for ran in self.calls.ran.values() if is_frozen_graph(ran))
        return next((graph for graph in graphs if getattr(graph, "original_name", "") in kinds), None)

    def found(self) -> Iterator[StandIn]:
        """One for each tensor and line."""
        groups: dict[tuple[int, str, Line | None, bool], list[str]] = {}
        tensors: dict[int, Tensor] = {}
        for path in self.wanted:
            met = self._equal.get(path) or self._beside.get(path)
            if met is not None:
                tensor, name, line = met
                tensors[id(tensor)] = tensor
                groups.setdefault((id(tensor), name, line, path in self._equal), []).append(path)
        for (key, name, line, equal), paths in groups.items():
            matrix = equal and tensors[key].dim() == 2
            yield StandIn(tuple(paths), self._words(tensors[key]), name, source(line), matrix=matrix, how="copy" if equal else "beside")

    def _words(self, tensor: Tensor) -> str:
        """What a tensor is, by the name under which the model holds it."""
        held: Any = (
            (f"{path}.{name}" if path else name, value)
            for path, module in self.layers.modules.items()
            for name, value in (*module._parameters.items(), *module._buffers.items(), *vars(module).items())
            if isinstance(value, torch.Tensor)
        )
        key = storage_key(tensor)
        name = next((name for name, value in held if storage_key(value) == key), None)
        return f"{name!r}" if name else "a tensor that no module holds"


def _around(path: str, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """The nearest module around with a forward of its own."""
    while path:
        path = path.rpartition(".")[0]
        module = modules.get(path)
        if module is not None and not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            return module
    return None


def _functional_call() -> Line | None:
    """The line that runs the module with other weights than its own."""
    around = (frame for frame in frames(sys._getframe(1)) if frame.f_code.co_name == "functional_call" and is_machinery(frame.f_code))
    outermost = max(around, key=lambda frame: len(list(frames(frame))) * -1, default=None)
    return line_above(outermost) if outermost is not None else None


def _is_constant(weight: Tensor) -> bool:
    return not is_weightless(weight) and bool((weight == weight.reshape(-1)[0]).all())


def _holds(tensor: Tensor, weight: Tensor) -> bool:
    """Whether a tensor holds the values of a weight: the same, one of a stack, or a block of rows or columns, either way round."""
    if is_weightless(tensor) or is_weightless(weight) or tensor.is_meta or weight.is_meta or tensor.device != weight.device:
        return False
    if tensor.numel() < weight.numel():
        return False
    weight = weight.to(tensor.dtype)
    if tensor.shape == weight.shape:
        return torch.equal(tensor, weight)
    if tensor.dim() == weight.dim() + 1 and tensor.shape[1:] == weight.shape:
        return any(torch.equal(part, weight) for part in tensor)
    return block_of(tensor, weight) is not None


def block_of(tensor: Tensor, weight: Tensor) -> tuple[int, bool, bool] | None:
    """Where a matrix holds the rows of a weight: the first of them, and whether the matrix, and the weight, are taken transposed for it."""
    if tensor.dim() != 2 or weight.dim() != 2 or is_weightless(tensor) or tensor.device != weight.device:
        return None
    for turned, weight_turned in ((False, False), (True, False), (True, True), (False, True)):
        matrix, rows = tensor.t() if turned else tensor, weight.t() if weight_turned else weight
        if matrix.shape[1] == rows.shape[1] and matrix.shape[0] >= rows.shape[0]:
            for start in (matrix == rows[0]).all(1).nonzero().flatten().tolist():
                if torch.equal(matrix[start : start + rows.shape[0]], rows):
                    return start, turned, weight_turned
    return None
