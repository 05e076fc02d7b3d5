"""Below autograd: which operation reads an adapted base weight while its adapter layer is not running.

A dispatch mode sees every operation with its real operands, whatever Python spelled it: `F.linear`,
a fused kernel, torch's encoder fast path. Weights are known by their storage, so views, `.data` and `.t()`
are still the weight, and what is computed from weights alone (a cast, a concatenation) is followed.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from peft_inspect.internals import TorchDispatchMode, find, schema_of
from peft_inspect.records import WeightUse
from peft_inspect.run.weightless import storage_key
from peft_inspect.structure.source.lines import Line, frames, is_machinery, is_peft, line_above, nearest_line, source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from peft_inspect.internals import OpOverload
    from peft_inspect.run.layers import AdapterLayers
    from peft_inspect.run.tensors import WriteGuard
    from peft_inspect.trace.calls import Calls


_get_modes, _pop_mode, _push_mode = (find(name) for name in ("get_dispatch_modes", "pop_dispatch_mode", "push_dispatch_mode"))


class _Traits(NamedTuple):
    view: bool  # a result is the operand under another shape
    writes: tuple[int, ...]  # positions of operands that are written
    writes_out: tuple[str, ...]  # the same, by keyword


@cache
def _traits(func: OpOverload) -> _Traits:
    schema = schema_of(func)
    written = [
        (i, argument) for i, argument in enumerate(schema.arguments) if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return _Traits(
        view=any(result.alias_info is not None and not result.alias_info.is_write for result in schema.returns),
        writes=tuple(i for i, argument in written if not argument.kwarg_only),
        writes_out=tuple(argument.name for _, argument in written if argument.kwarg_only),
    )


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The dispatch mode of every run: copies what is about to be written, and tells `reads` of every operation.

    The step of a program that is not to be undone has no guard.
    """

    def __init__(self, guard: WriteGuard | None, reads: WeightReads | None = None, *, of: Operations | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._guard = guard
        self.reads = reads
        self._of = of  # in another thread, which may outlive the run
        self.over = False  # what its threads still do is no part of the run
        self._paused = False

    def in_thread(self) -> Callable[[], Operations]:
        """The same for a thread that work is handed to: each thread has modes of its own."""
        return partial(Operations, self._guard, self.reads, of=self)

    def pause(self) -> bool:
        """Watch no operation until `resume`, if no other mode is there that might need it; says whether it does so."""
        if None in (_get_modes, _pop_mode, _push_mode) or _get_modes() != [self]:
            return False
        _pop_mode()
        self._paused = True
        return True

    def resume(self) -> None:
        """Watch on."""
        if self._paused:
            _push_mode(self)
            self._paused = False

    def __exit__(self, *error: object) -> None:
        self.over = True
        self.resume()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled in here; saying so at every operation costs as much as watching it."""
        return False

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if self._of is not None and self._of.over:
            return func(*args, **kwargs) if kwargs else func(*args)
        traits = _traits(func)
        if self._guard is not None and (traits.writes or traits.writes_out):
            for operand in (*(args[i] for i in traits.writes if i < len(args)), *((kwargs or {}).get(name) for name in traits.writes_out)):
                for tensor in _tensors((operand,)):
                    self._guard.before_write(tensor)
        result = func(*args, **kwargs) if kwargs else func(*args)
        if self.reads is not None and not traits.view:
            self.reads.saw(func, args, kwargs, traits, result)
        return result


def _tensors(operands: Iterable[Any]) -> Iterator[Tensor]:
    for operand in operands:
        if isinstance(operand, torch.Tensor):
            yield operand
        elif isinstance(operand, (list, tuple)):
            yield from _tensors(operand)


@dataclass
class WeightReads:
    """Reads of adapted base weights and of adapter weights, told apart by whether their adapter layer is running."""

    layers: AdapterLayers
    calls: Calls
    _outside: Counter[tuple[int, str, str, int | None, Line | None, bool, bool]] = field(default_factory=Counter)
    _with_adapter: set[tuple[int, int | None]] = field(default_factory=set)  # (layer, caller) that read adapter weights too
    read: set[str] = field(default_factory=set)  # layers whose base weight anything outside them looked at
    _derived: dict[int, frozenset[tuple[int, str]]] = field(default_factory=dict)
    _alive: list[StorageWeakRef] = field(default_factory=list)  # keeps the keys of `_derived` from being reused

    def __post_init__(self) -> None:
        self._base = dict(self.layers.base_weights)
        self._adapter = self.layers.adapter_weights
        buffers = [buffer for module in self.layers.modules.values() for buffer in module._buffers.values() if buffer is not None]
        self._followed = {*self._base, *self._adapter}
        self._weights = {storage_key(tensor) for tensor in (*self.layers.parameters.values(), *buffers)}

    def stands_for(self, weight: Tensor, owners: frozenset[tuple[int, str]]) -> None:
        """From now on a read of this tensor is one of the base weight that it is the whole of."""
        key = storage_key(weight)
        self._base[key] = owners
        self._followed.add(key)
        self._weights.add(key)

    def saw(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any] | None, traits: _Traits, result: Any) -> None:
        """One operation that is not a view."""
        if not self._concerns(args) and not (kwargs and self._concerns(kwargs.values())):
            return
        base, adapter, derived = self._base, self._adapter, self._derived
        read: list[frozenset[tuple[int, str]]] = []
        others: list[Tensor] = []
        for operand in (*args, *kwargs.values()) if kwargs else args:
            for tensor in (
                (operand,) if isinstance(operand, torch.Tensor) else _tensors(operand) if isinstance(operand, (list, tuple)) else ()
            ):
                key = storage_key(tensor)
                if key in base:
                    read.append(base[key])
                elif key in adapter:
                    self._adapter_read(*adapter[key])
                    others.append(tensor)
                elif key in derived:
                    read.append(derived[key])
                else:
                    others.append(tensor)
        if read:
            self._base_read(frozenset().union(*read), others, func, traits, result)

    def _concerns(self, operands: Iterable[Any]) -> bool:
        """Whether a weight is among them. Most operations are answered here, so this looks at no more than it has to."""
        followed = self._followed
        for operand in operands:
            if isinstance(operand, torch.Tensor):
                if storage_key(operand) in followed:
                    return True
            elif isinstance(operand, (list, tuple)) and self._concerns(operand):
                return True
        return False

    def _adapter_read(self, layer: int, adapter: str) -> None:
        call = self.calls.innermost(layer)
        if call is not None:
            call.adapter_used.add(adapter)
        else:
            self._with_adapter.add((layer, self.calls.current))

    def _base_read(self, owners: frozenset[tuple[int, str]], others: list[Tensor], func: OpOverload, traits: _Traits, result: Any) -> None:
        running = [layer for layer, _ in owners if self.calls.inside(layer)]
        if running:
            for layer in running:
                self.calls.base_read(layer, nearest_line)
                if (call := self.calls.innermost(layer)) is not None:
                    call.base_used = True
            return
        if any(self.calls.inside(ancestor) for layer, _ in owners for ancestor in self.layers.enclosing.get(layer, ())):
            return
        if traits.writes or _called_by_peft():
            return
        self.read |= {self.layers.path[layer] for layer, _ in owners}
        if (kept := self._bound_forward()) is not None:
            self.calls.base_called(*kept, self.calls.current)
            return
        if all(storage_key(other) in self._weights for other in others):
            self._derive(result, owners)
        elif any(other.numel() > 1 or not other.is_floating_point() for other in others):
            line, caller = nearest_line(), self.calls.current
            in_tie = self._in_tie(owners)
            for layer, parameter in owners:
                self._outside[layer, parameter, _name(func), caller, line, in_tie, self.calls.in_reference] += 1

    def _bound_forward(self) -> tuple[int, Callable[[], Line | None]] | None:
        """The base layer whose own forward performs this operation, though it was not called as a module: a bound method was kept."""
        for frame in frames(sys._getframe(1)):
            module = id(frame.f_locals.get("self")) if frame.f_code.co_name == "forward" else None
            if module in self.layers.bases:
                return module, partial(line_above, frame)
        return None

    def _derive(self, result: Any, owners: frozenset[tuple[int, str]]) -> None:
        """Follow what is computed from weights alone; a single number is a statistic, not a weight."""
        for tensor in _tensors((result,)):
            if tensor.is_floating_point() and tensor.numel() > 1 and tensor.layout is torch.strided:
                self._derived[storage_key(tensor)] = owners
                self._followed.add(storage_key(tensor))
                self._alive.append(StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]

    def _in_tie(self, owners: frozenset[tuple[int, str]]) -> bool:
        """Whether the module that is running registers the same parameter itself: a tied weight."""
        module = self.calls.current_module
        if module is None:
            return False
        keys = {storage_key(parameter) for parameter in module._parameters.values() if parameter is not None}
        return any(key in keys for key, of_key in self._base.items() if of_key & owners)

    def found(self) -> tuple[WeightUse, ...]:
        """The reads outside, but for those of callers that apply the adapter themselves (fused LoRA kernels)."""
        return tuple(
            WeightUse(self.layers.path[layer], parameter, operation, self.calls.path_of(caller), source(line), count, in_tie, reference)
            for (layer, parameter, operation, caller, line, in_tie, reference), count in self._outside.items()
            if (layer, caller) not in self._with_adapter
        )


def _name(func: OpOverload) -> str:
    return str(func.overloadpacket).removeprefix("aten.")


def _called_by_peft() -> bool:
    """Whether PEFT itself performs this operation: merging, or computing a delta."""
    innermost = next((frame for frame in frames(sys._getframe(1)) if not is_machinery(frame.f_code)), None)
    return innermost is not None and is_peft(innermost.f_code)
