"""Where the steps of a running program begin and end, and which models take part in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.outside import from_outside
from peft_inspect.program.as_it_was import as_it_was
from peft_inspect.program.inquiry import Inquiry
from peft_inspect.program.live import looked_up_once, root_of, roots_behind
from peft_inspect.program.presence import Presence
from peft_inspect.program.ranks import NoVerdictError, Ranks
from peft_inspect.program.rewind import Rewind
from peft_inspect.program.roots import Root, meant_to_train
from peft_inspect.program.step_end import PATIENCE, is_over
from peft_inspect.program.stuck import told_if_stuck
from peft_inspect.program.together import all_have_ended
from peft_inspect.program.unadapted import Seen, Unadapted
from peft_inspect.records import Diagnosis, text_of
from peft_inspect.structure.source.lines import nearest_line, source

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from peft_inspect.trace.threads import Watcher

_DEAF = 1000  # times that a program is stopped and goes on to train all the same, before its process is ended


class Session:
    """Listens to the steps of a program until the inquiry is over.

    `conclude` is called once, with the diagnoses; what it returns is raised in the program, now and whenever it goes on
    to train all the same. None leaves the program alone.
    """

    def __init__(
        self,
        inquiry: Inquiry,
        conclude: Callable[[Mapping[str, Diagnosis]], BaseException | None],
        failed: Callable[[Exception], BaseException | None],
        abandon: Callable[[], None] = lambda: None,
        runs: Callable[[], bool] = lambda: True,
    ) -> None:
        """`failed` is told what goes wrong in the watching itself; what it returns is raised likewise.

        `abandon` ends the process of a program that swallows whatever is raised in it, for ever. `runs` tells whether the training
        that is watched still runs: what comes later is none of it.
        """
        self._abandon = abandon
        self._runs = runs
        self._inquiry = inquiry
        self._conclude = conclude
        self._failed = failed
        self._presence = Presence(self)
        self._notes = self._presence.notes
        self._trial = ExitStack()
        self._roots: list[Root] = []
        self._stop: BaseException | None = None
        self._calling: Root | None = None
        self.ranks: Ranks | None = None  # where the program has set up any processes
        self.refused = ""  # why nothing is judged
        self._stepping: Optimizer | None = None
        self._rewind = Rewind()
        self._told = 0
        self.concluded = False
        self.seen = Seen()
        self._settling = False  # the call of a model whose step was sound: are its weights still what the step made of them?
        self._unadapted: Unadapted | None = Unadapted(self._notes.changes)  # until a model with adapters is trained

    def begin(self) -> None:
        """Watch the process from now on."""
        self._presence.begin()

    @property
    def runs(self) -> bool:
        """Whether the training that is watched still runs: what comes later is none of it."""
        return self._runs()

    @property
    def as_written(self) -> bool:
        """Whether compiled code is to run as it was written, and to be watched."""
        return self._inquiry.as_written

    @property
    def in_operation(self) -> list[Watcher]:
        """What watches the step at the moment, thread by thread."""
        return [watcher for root in self._roots for watcher in root.in_operation]

    def hide(self) -> None:
        """Watch nothing more of the calls in this step."""
        for root in reversed(self._roots):
            root.hide()

    def end(self) -> None:
        """Leave the process as it would be without this; what began inside it and still watches is left to end first."""
        self.concluded = True
        self._drop()
        self._trial.close()
        self._calling = self._unadapted = None
        self._rewind = Rewind()
        self._inquiry.forget()
        self._presence.end()

    def finish(self, *, to_the_end: bool = False) -> None:
        """The program has ended: judge what was seen of it, if anything was. `to_the_end` says that nothing cut it short."""
        if not self.concluded:
            if self._seen:
                for root in self._roots:
                    root.never_stepped = to_the_end and root.backwards > 1 and not root.changed_by_hand
                self._step_over()
            self._take_unadapted()
            if not self.concluded and self._inquiry.diagnoses():
                self._over()
        if self.ranks is not None:
            self.ranks.leave()
        self._stop = None
        self.end()

    def called(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """The outermost call of a module: with gradients on, it may begin a step."""
        self._go_on_or_stop()
        self._calling = None
        if self._seen and all(root.ended or root.changed_by_hand for root in self._roots if root.backwards):
            self._step_over()
            self._go_on_or_stop()
        if not self.concluded and self._inquiry.warmed_up:
            self._over()
            self._go_on_or_stop()
        if self.concluded:
            return
        model = root_of(module)
        if self._inquiry.phase == "settle":
            self._settling = torch.is_grad_enabled() and self._inquiry.trains(model)
            if not self._settling:  # an evaluation, another model: they say nothing of this one's weights
                self._over()
                self._go_on_or_stop()
            return
        if model is None:
            self.seen.without_adapters += 1
            if self._unadapted is not None:
                self._unadapted.called(module)
            return
        if torch.is_grad_enabled():
            self._unadapted = None
            self._presence.model_is_built()
        self.seen.with_adapters += 1
        with self._telling():
            self._calling = root = self._root(model, module, args)
            root.enter_call(args, self._notes.switches)
        self._go_on_or_stop()

    def _root(self, model: nn.Module, module: nn.Module, args: tuple[Any, ...]) -> Root:
        """The root of this model in this step. Of calls without gradients before the first one with them, the last is kept."""
        known = next((root for root in self._roots if any(part is model for part in root.model.modules())), None)
        if known is not None and known.model is model and not known.trains and not known.backwards:
            known.end()
            self._roots.remove(known)
            known = None
        if known is None:
            for part in [root for root in self._roots if not root.trains and any(inside is root.model for inside in model.modules())]:
                part.end()  # a generation, say, calls the model inside
                self._roots.remove(part)
            self.ranks = self._inquiry.ranks = self.ranks or Ranks.of_this_job()
            known = Root.begin(model, module, args, self._notes, self._inquiry.manner(model))
            self._roots.append(known)
            if self.ranks is not None:
                known.note_arrivals()
        return known

    def recorded(self) -> None:
        """Whoever records what a module does would record what watches it."""
        for root in reversed(self._roots):
            root.leave_operations()

    def returned(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The end of such a call."""
        if self._settling:
            self._settling = False
            with self._telling():
                self._inquiry.settle()
            self._over()
            self._go_on_or_stop()
        if self._calling is not None and not self.concluded:
            with self._telling():
                self._calling.called_with(module, args, kwargs)
                if not torch.is_grad_enabled():  # what comes next is no loss
                    self._calling.leave_operations()

    def backward(self, tensors: tuple[Any, ...], run: Callable[[float], None]) -> None:
        """The outermost backward: what is trained, and afterwards what has arrived."""
        self._go_on_or_stop()
        if self._presence.compiled.ran and not self._roots and not self.concluded:
            self._begin_behind(tensors)
        watched = [root for root in self._roots if not root.ended]
        with self._telling():
            for root in watched:
                root.before_backward(tensors)
        try:
            with self._within_backward():
                run(max((root.scale for root in watched), default=1.0))
        except RuntimeError:
            self._stop_where_blind()
            if not watched or any(isinstance(tensor, torch.Tensor) and tensor.requires_grad for tensor in tensors):
                raise
            for root in watched:  # nothing of the loss requires a gradient, and that is what is to be explained
                root.after_backward()
            self._step_over(last=True)
            self._go_on_or_stop()
            raise
        with self._telling():
            for root in watched:
                root.after_backward()
            if self._stepping is not None:  # a closure: no step begins after this backward
                self._before_step(self._stepping)

    def _within_backward(self) -> AbstractContextManager[None]:
        """While it runs, the other processes know where this one is."""
        if self.concluded or self.ranks is None:
            return nullcontext()
        return told_if_stuck(self.ranks, lambda: self._is_blind, self._tell_alone)

    @property
    def _is_blind(self) -> bool:
        return any(root.blind for root in self._roots)

    def _stop_where_blind(self) -> None:
        """A backward has failed: where this process alone took its forward without gradients, it met other collectives than its own."""
        if self.ranks is not None and self.ranks.size > 1 and not self.concluded and self._is_blind:
            with self._telling():
                self._judge_alone(self.ranks)
            self._go_on_or_stop()

    def _tell_alone(self) -> None:
        """No process comes out of its backward: say why, and end this one."""
        assert self.ranks is not None
        with self._telling():
            self._judge_alone(self.ranks)
        if self._stop is not None:
            self._abandon()

    def _judge_alone(self, ranks: Ranks) -> None:
        ranks.leave_others()
        for root in self._roots:
            root.take_forward()
        self._inquiry.take(meant_to_train(self._roots))
        self._over()

    def _begin_behind(self, tensors: tuple[Any, ...]) -> None:
        """A compiled function has called the model, and its graph alone tells which one."""
        with self._telling():
            for model in roots_behind(tensor for tensor in tensors if isinstance(tensor, torch.Tensor)):
                root = self._root(model, model, ())
                root.trains, self._unadapted = True, None
                root.hide()
        self._presence.compiled.ran = False

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What fails in the watching is no error of the program.

        In several processes, one whose watching fails tells the others instead of staying away, and all of them go on to train.
        """
        try:
            yield
        except NoVerdictError as error:
            self._refuse(str(error))
        except Exception as error:
            if from_outside(error):
                self._refuse(text_of(error))
                raise
            if self.ranks is None or self.ranks.size == 1:
                self._refuse(text_of(error))
                self._stop = self._failed(error)
            else:
                self._refuse(self.ranks.fail(error))

    def _refuse(self, reason: str) -> None:
        """Nothing is judged, and the program goes on."""
        self.refused, self.concluded = f"not inspected: {reason}", True
        self.end()

    def again(self, tensors: tuple[Any, ...]) -> None:
        """Activation checkpointing has run a block again."""
        for root in self._roots:
            root.again(tensors)

    def cleared(self) -> None:
        """Gradients are cleared: after the backward and before the step, that is a fault."""
        for root in self._roots:
            if root.backwards and not root.updates.stepped:
                root.updates.cleared = source(nearest_line())

    def step_begins(self, optimizer: Optimizer) -> None:
        """What the optimizer is about to use. Training that was told to stop goes no further."""
        self._go_on_or_stop()
        self._stepping = optimizer
        with self._telling():
            self._before_step(optimizer)
        self._go_on_or_stop()

    def _before_step(self, optimizer: Optimizer) -> None:
        for root in self._roots:
            if root.backwards and not root.ended:
                root.before_step()
                if root.starves and (self.ranks is None or self.ranks.size == 1):  # the others do not know of it
                    self._rewind.keep(optimizer)

    def step_ended(self, optimizer: Optimizer) -> None:
        """The end of the step of every model that this optimizer trains."""
        self._stepping = None
        if self.concluded:
            return
        with self._telling():
            if self._unadapted is not None:
                self._unadapted.step_ended()
                if self._unadapted.steps >= PATIENCE * self._inquiry.steps:
                    self._take_unadapted()
                    self._over()
            with looked_up_once() if self._roots else nullcontext():
                for root in self._roots:
                    if root.backwards and not root.ended:
                        root.ended = is_over(root, optimizer)
                        root.updates.after_step(optimizer)
                if self._has_ended():
                    self._step_over()
        self._go_on_or_stop()

    def _take_unadapted(self) -> None:
        if self._unadapted is not None and not self.concluded and not torch.distributed.is_initialized():
            with self._telling():
                self._inquiry.take_unadapted(self._unadapted.structures())

    def _has_ended(self) -> bool:
        """Whether the step has ended: in every process, those included that have nothing to watch."""
        ended = all(root.ended for root in self._roots if root.backwards)
        return self._seen and ended if self.ranks is None else all_have_ended(self.ranks, seen=self._seen, ended=ended)

    def step_skipped(self, optimizer: Optimizer) -> None:  # noqa: ARG002
        """A step that was left out says nothing of the gradients, as scalers begin high and come down; but for one whose loss is none."""
        self.seen.skipped += 1
        if self._seen and (self.seen.skipped > PATIENCE or any(root.has_no_loss for root in self._roots)):
            self._step_over()
            self._go_on_or_stop()
        else:
            self._drop()

    @property
    def _seen(self) -> bool:
        return any(root.backwards for root in self._roots)

    def _drop(self) -> None:
        for root in reversed(self._roots):
            root.end()
        self._roots.clear()

    def _step_over(self, *, last: bool = False) -> None:
        roots = meant_to_train(self._roots)
        for root in reversed(self._roots):
            root.end()
        self._trial.close()
        with self._telling():
            self._inquiry.take(roots)
        self._drop()
        if self.concluded:
            return
        self.seen.skipped = 0
        if last or self._inquiry.phase == "done":
            self._over()
        elif self._inquiry.phase == "try" and self._inquiry.trial is not None:
            self._trial.enter_context(as_it_was([root.model for root in roots]))
            self._trial.enter_context(self._inquiry.trial.in_force())

    def _over(self) -> None:
        self._trial.close()
        with self._telling():
            self._inquiry.put_together()
        if self.concluded:
            return
        self.concluded = True
        with self._telling():
            self._stop = self._conclude(self._inquiry.diagnoses())
        if self._stop is None:
            self.end()
        else:
            self._rewind.put_back()

    def _go_on_or_stop(self) -> None:
        if not self.runs:
            self._stop = None
            self.end()
        if self._stop is not None:
            self._told += 1
            if self._told > _DEAF:
                self._abandon()
            raise self._stop.with_traceback(None)
