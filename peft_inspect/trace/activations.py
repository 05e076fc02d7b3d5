"""What each module hands on and what it costs: the shape of its output, and multiply-adds by torch's own formulas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.batch import make_batch
from peft_inspect.internals import TorchDispatchMode, find
from peft_inspect.records import Activation, Structure, Subject
from peft_inspect.reversible import hooked
from peft_inspect.run.layers import AdapterLayers
from peft_inspect.run.runs import forward, own_copy, runnable
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.run.weightless import materialise
from peft_inspect.structure.runtimes import require_own_pass
from peft_inspect.trace.operations import Operations

if TYPE_CHECKING:
    from peft_inspect.internals import OpOverload


def activations(subject: Subject, structure: Structure, step: Callable[[str], None] = lambda _: None) -> Mapping[str, Activation]:
    """One forward of the subject's batch, by module path; modules that did not run have no row.

    Raises:
        InspectionError: no batch could be made, the forward raised, or a runtime owns the model's step.
    """
    require_own_pass(subject.model)
    if subject.weights == "none":
        materialise(subject.model)
    step("making a batch")
    subject.batch, _ = make_batch(subject)
    inside: list[str] = []
    costs = _MultiplyAdds(inside)
    outputs: dict[str, str] = {}

    def entered(path: str, *_: Any) -> None:
        inside.append(path)

    def left(path: str, _module: Any, _arguments: Any, output: Any) -> None:
        inside.pop()
        outputs[path] = _shape(output)

    modules = AdapterLayers(subject.model, structure).modules
    hooks = [partial(module.register_forward_pre_hook, partial(entered, path)) for path, module in modules.items()]
    hooks += [partial(module.register_forward_hook, partial(left, path)) for path, module in modules.items()]
    step("one forward")
    with runnable(subject), undisturbed(subject.model) as guard, hooked(*hooks), Operations(guard), costs:
        forward(subject, own_copy(subject.batch))
    return {path: Activation(shape, costs.found[path]) for path, shape in outputs.items()}


class _MultiplyAdds(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds the cost of every operation to all modules that are running."""

    def __init__(self, inside: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inside = inside
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if cost := _cost(func, args, kwargs or {}, result):
            for path in dict.fromkeys(self._inside):
                self.found[path] += cost
        return result


def _cost(func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> int:
    """Multiply-adds of matrix products, convolutions and attention; all else is small beside them."""
    if "scaled_dot_product" in str(func) and "backward" not in str(func):  # not every device's kernel has a formula
        query, key, value = args[:3]
        return int(prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))
    formula = (find("flop_registry") or {}).get(func.overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=result)) // 2


def _shape(output: Any) -> str:
    """`1×16×4096` of the first tensor in it."""
    if isinstance(output, torch.Tensor):
        return "×".join(map(str, output.shape)) or "scalar"
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((shape for value in values if (shape := _shape(value))), "")
