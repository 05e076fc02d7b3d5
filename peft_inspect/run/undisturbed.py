"""The promise of the tool: what it inspects is afterwards bit for bit what it was, whatever happened in between.

Nothing is copied that does not change. Parameters and tensors in plain attributes are aliased, and an operation
that is about to write into one makes the copy first (`WriteGuard.before_write`, called by the dispatch mode of every run);
so does whoever asks for the memory itself, past all operations. Small buffers are copied up front: batch norm writes its
statistics through an operation that does not say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from peft_inspect.internals import find
from peft_inspect.reversible import Reversible, patched, uncollected
from peft_inspect.run import patches
from peft_inspect.run.process import kept_process
from peft_inspect.run.reachable import Restore, kept_contents, reachable
from peft_inspect.run.registries import kept_attributes
from peft_inspect.run.tensors import WriteGuard, kept_leaves, kept_outside_graphs, set_gradients_aside

if TYPE_CHECKING:
    from torch import Tensor, nn

_set_grad_enabled = find("set_grad_enabled") or torch.set_grad_enabled  # runs replace the methods of the latter


class undisturbed(Reversible[WriteGuard]):  # noqa: N801 - reads as what it does
    """Run anything with `model` inside; afterwards, also after an exception or Ctrl-C, it is as it was found.

    Restored are: parameters, gradients, `requires_grad`, hooks, buffers, modes, registries in their order and every other attribute
    of each module, with the containers, arrays, generators and objects that they lead to, and of the process what
    `peft_inspect.run.process` lists: random number generators, grad mode, autocast and other settings. Gradients are None
    inside, so that a backward shows what arrives.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._grad_enabled = torch.is_grad_enabled()
        self._restores: list[Restore] = []

    def set_up(self) -> WriteGuard:
        """Look at everything first; nothing is changed before all of it is known."""
        with uncollected():
            return self._look_and_change()

    def _look_and_change(self) -> WriteGuard:
        found = reachable(self._model)
        parameters = _unique(parameter for module in found.modules for parameter in module._parameters.values())
        buffers = _unique(buffer for module in found.modules for buffer in module._buffers.values())
        trained = [*parameters, *(tensor for tensor in (*buffers, *found.tensors) if tensor.requires_grad and tensor.is_leaf)]
        guard = WriteGuard([*parameters, *found.tensors], buffers)
        restores = [
            *kept_process(),
            *kept_contents(found),
            *kept_attributes(found.modules),
            guard.restore,
            *kept_leaves(trained),
            kept_outside_graphs(tensor for tensor in (*buffers, *found.tensors) if not tensor.requires_grad),
        ]
        reads = patched(*((*place, guard.reading) for place in patches.MEMORY))
        self._restores = [*restores, reads.put_back]
        reads.set_up()
        set_gradients_aside(trained)
        return guard

    def put_back(self) -> None:
        """From the last to the first; one that fails keeps none of the others from being done."""
        failed: BaseException | None = None
        _set_grad_enabled(False)
        for restore in reversed(self._restores):
            try:
                restore()
            except BaseException as error:  # noqa: PERF203 - each has its own
                failed = failed or error
        _set_grad_enabled(self._grad_enabled)
        torch.clear_autocast_cache()  # or an autocast around this goes on with casts of weights as they were inside
        if failed is not None:
            raise failed


def _unique(tensors: Iterable[Tensor | None]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors if tensor is not None}.values())
