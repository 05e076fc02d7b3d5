"""One inspection of a running program: step by step, until it is known what is wrong, or that nothing is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.diagnose import Evidence, diagnose
from peft_inspect.program.hooks import Hooks
from peft_inspect.program.roots import Root, holds, optimizers_of, root_of
from peft_inspect.records import AdapterFile, Diagnosis
from peft_inspect.rules import Rule
from peft_inspect.trace.grad_mode import GradSwitches

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

_PATIENCE = 10  # steps of other optimizers that an optimizer which holds the adapters is waited for


class Session:
    """Listens to the steps of a program and judges them.

    `conclude` is called once, with the diagnoses; what it returns is raised in the program, now and whenever it goes on
    to train all the same. None leaves the program alone.
    """

    def __init__(
        self,
        source: str,
        rules: Sequence[Rule[Any]],
        ignore: Mapping[str, str],
        steps: int,
        conclude: Callable[[Mapping[str, Diagnosis]], BaseException | None],
    ) -> None:
        self._source = source
        self._rules = rules
        self._ignore = ignore
        self._steps = steps
        self._conclude = conclude
        self._switches = GradSwitches()
        self._hooks = Hooks(self)
        self._watching = ExitStack()
        self._roots: list[Root] = []
        self._stop: BaseException | None = None
        self._calling: Root | None = None
        self.concluded = False
        self.steps_seen = 0
        self.calls_with_adapters = 0
        self.calls_without_adapters = 0

    def begin(self) -> None:
        """Watch the process from now on."""
        self._watching.enter_context(self._switches.watching())
        self._hooks.install()

    def end(self) -> None:
        """Leave the process as it would be without this."""
        self._drop()
        self._hooks.remove()
        self._watching.close()

    def finish(self) -> None:
        """The program has ended: judge what was seen of it, if anything was."""
        if not self.concluded and any(root.backwards for root in self._roots):
            self._judge()
        self.end()

    @property
    def seen(self) -> str:
        """What was seen of the program, where it is no step of a model with adapters."""
        if self.calls_with_adapters:
            return f"{self.calls_with_adapters} calls of a model with adapters, and no backward after any of them"
        if self.calls_without_adapters:
            return f"{self.calls_without_adapters} calls of models, none of which holds an adapter layer"
        return "no model was called"

    def called(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """The outermost call of a module: with gradients on, it may begin a step."""
        self._go_on_or_stop()
        self._calling = None
        if self._seen and all(root.ended or root.changed_by_hand for root in self._roots if root.backwards):
            self._judge()
            self._go_on_or_stop()
        if self.concluded:
            return
        model = root_of(module)
        if model is None:
            self.calls_without_adapters += 1
            return
        self.calls_with_adapters += 1
        self._calling = root = self._root(model, module, args)
        root.trains = root.trains or torch.is_grad_enabled()
        root.enter_call()

    def _root(self, model: nn.Module, module: nn.Module, args: tuple[Any, ...]) -> Root:
        """The root of this model in this step. Of calls without gradients before the first one with them, the last is kept."""
        known = next((root for root in self._roots if any(part is model for part in root.model.modules())), None)
        if known is not None and known.model is model and not known.trains and not known.backwards:
            known.end()
            self._roots.remove(known)
            known = None
        if known is None:
            known = Root.begin(model, module, args, self._switches)
            self._roots.append(known)
        return known

    def returned(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The end of such a call."""
        if self._calling is not None and not self.concluded:
            self._calling.called_with(module, args, kwargs)

    def backward(self, tensors: tuple[Any, ...], run: Callable[[], None]) -> None:
        """The outermost backward: what is trained, and afterwards what has arrived."""
        self._go_on_or_stop()
        watched = [root for root in self._roots if not root.ended]
        for root in watched:
            root.before_backward(tensors)
        run()
        for root in watched:
            root.after_backward()

    def again(self, tensors: tuple[Any, ...]) -> None:
        """Activation checkpointing has run a block again."""

    def step_begins(self, optimizer: Optimizer) -> None:  # noqa: ARG002
        """Training that was told to stop goes no further."""
        self._go_on_or_stop()

    def step_ended(self, optimizer: Optimizer) -> None:
        """The end of the step of every model that this optimizer trains."""
        if self.concluded:
            return
        for root in self._roots:
            root.ended = root.ended or (root.backwards > 0 and _ends(root, optimizer))
        if self._seen and all(root.ended for root in self._roots if root.backwards):
            self._judge()
            self._go_on_or_stop()

    def step_skipped(self, optimizer: Optimizer) -> None:  # noqa: ARG002
        """A step that was left out says nothing of the gradients: scalers begin high and come down."""
        self._drop()

    @property
    def _seen(self) -> bool:
        return any(root.backwards for root in self._roots)

    def _drop(self) -> None:
        for root in self._roots:
            root.end()
        self._roots.clear()

    def _judge(self) -> None:
        self.steps_seen += 1
        found: dict[str, Diagnosis] = {}
        for root in self._judged():
            trace = root.trace(optimizers_of(root.layers.parameters.values()))
            missing: Mapping[type, str] = {AdapterFile: "no adapter was loaded"}
            name = type(root.model).__name__
            name = f"{name} ({root.called})" if name in found and root.called else name
            found[name] = diagnose(self._source, Evidence(trace.structure, trace, (), missing), self._rules, self._ignore)
        self._drop()
        self.concluded = True
        self._stop = self._conclude(found)
        if self._stop is None:
            self.end()

    def _judged(self) -> list[Root]:
        """The models that are trained, or are meant to be: a reference beside one that trains is none of them."""
        seen = [root for root in self._roots if root.backwards]
        meant = [root for root in seen if root.trainable and (root.trains or optimizers_of(root.trainable))]
        return meant or seen

    def _go_on_or_stop(self) -> None:
        if self._stop is not None:
            raise self._stop.with_traceback(None)


def _ends(root: Root, optimizer: Optimizer) -> bool:
    """Whether the step of this optimizer is that of this model: it holds its adapters, or no other one does that could still step."""
    trainable = {id(parameter) for parameter in root.trainable}
    if holds(optimizer, trainable):
        return True
    root.foreign[id(optimizer)] = steps = root.foreign.get(id(optimizer), 0) + 1
    if steps >= _PATIENCE:
        return True
    if trainable and optimizers_of(root.trainable):
        return False
    return steps > 1 or holds(optimizer, {id(parameter) for parameter in root.layers.parameters.values()})
