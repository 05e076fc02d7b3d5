"""What the optimizer's step does to the weights of a model: their values before and after, where the gradients were."""

from __future__ import annotations

import copy
import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from peft_inspect.internals import hooks_after_accumulation, version_of
from peft_inspect.records import GradientInfo, OptimizerStep, Source, Structure, Update
from peft_inspect.structure.optimizers import held_by
from peft_inspect.structure.shards import is_part, numbers
from peft_inspect.structure.source.lines import source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

    from peft_inspect.structure.source.lines import Line

_SAMPLE = 65_536  # values of one weight that are looked at
_COPIED = 1 << 28  # values of weights for which an optimizer is copied


@dataclass
class Updates:
    """The trained weights of one model, from the first forward of a step to what follows the optimizer's step."""

    structure: Structure
    parameters: Mapping[str, nn.Parameter]
    cleared: Source | None = None  # the line that cleared gradients after the backward
    _values: dict[str, Tensor] = field(default_factory=dict)
    _gradients: dict[str, Tensor | None] = field(default_factory=dict)
    _versions: dict[str, int] = field(default_factory=dict)
    _settings: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _optimizer: str = ""
    _schedule: int | None = None
    stepped: bool = False
    made: Callable[[Any], Line | None] = lambda _: None  # the line that made an optimizer or a schedule
    _after: dict[str, Tensor] = field(default_factory=dict)  # of the weights that it moved
    _by: tuple[Source | None, Source | None] = (None, None)

    def begin(self) -> None:
        """Before the first forward. Not more than a sample of a large weight is kept."""
        for info in self.structure.parameters:
            parameter = self.parameters[info.path]
            self._versions[info.path] = version_of(parameter)
            if info.requires_grad and info.role in ("adapter", "saved") and _is_plain(parameter):
                self._values[info.path] = _sample(parameter).clone()

    def before_step(self) -> None:
        """The gradients that an optimizer is about to use."""
        self._gradients = {path: _gradient(self.parameters[path]) for path in self._values}
        if not self.stepped:
            self._versions = {path: version_of(self.parameters[path]) for path in self._versions}

    def after_step(self, optimizer: Optimizer, stands_for: Optimizer | None = None) -> None:
        """It has stepped, or has in the place of another one."""
        self.stepped = True
        self._optimizer = type(optimizer).__name__
        for group in getattr(optimizer, "param_groups", None) or ():
            settings = {name: value for name, value in group.items() if name != "params"}
            self._settings.update(dict.fromkeys(map(id, group["params"]), settings))
        self._settings.update({id(tensor): {} for tensor in held_by(optimizer) if id(tensor) not in self._settings})
        rates = [settings.get("lr") for settings in self._settings.values()]
        schedule = _schedule_of(stands_for or optimizer) if rates and not any(rates) else None
        self._schedule = schedule.last_epoch if schedule is not None else None
        self._by = source(self.made(stands_for or optimizer)), source(self.made(schedule))

    def found(self, arrived: frozenset[str]) -> OptimizerStep | None:
        """What the step did; None where no optimizer stepped. `arrived` are paths that a gradient other than zero had reached."""
        if not self.stepped:
            return None
        changes = {path: self._change(path) for path in self._values}
        counts = numbers({(path, name): count for path, change in changes.items() for name, count in change.counts().items()})
        updates = tuple(self._update(path, change, counts, path in arrived) for path, change in changes.items())
        self._after = {update.path: _sample(self.parameters[update.path]).clone() for update in updates if update.moved}
        frozen = [info.path for info in self.structure.parameters if info.role == "base" and not info.requires_grad]
        moved = tuple(path for path in frozen if version_of(self.parameters[path]) != self._versions[path])
        made, schedule = self._by
        return OptimizerStep(self._optimizer, updates, moved, self.cleared, self._schedule, schedule, made)

    @property
    def has_moved(self) -> bool:
        """Whether it has moved any weight, as far as was looked."""
        return bool(self._after)

    def undone(self) -> frozenset[str]:
        """Paths of the weights that it moved, and that hold now what they held before it."""
        back = {}
        for path, after in self._after.items():
            now = _sample(self.parameters[path])
            back[path] = (now == self._values[path]).all() & (now != after).any()
        return frozenset(path for path, value in numbers(back).items() if value)

    def _change(self, path: str) -> _Change:
        before, after, gradient = self._values[path], _sample(self.parameters[path]), self._gradients.get(path)
        asked = gradient != 0 if gradient is not None else torch.zeros_like(after, dtype=torch.bool)
        return _Change(before, asked, after == before)

    def _update(self, path: str, change: _Change, counts: Mapping[tuple[str, str], float], arrived: bool) -> Update:
        settings = self._settings.get(id(self.parameters[path]))
        rate = None if settings is None else settings.get("lr")
        first = None if settings is None else settings.get("initial_lr")
        stayed = int(counts[path, "stayed"])
        return Update(
            path=path,
            held=settings is not None,
            lr=None if rate is None else float(rate),
            scheduled_lr=None if first is None else float(first),
            arrived=arrived,
            cleared=self._gradients.get(path) is None and not hooks_after_accumulation(self.parameters[path]),  # which take it
            asked=int(counts[path, "asked"]),
            stayed=stayed,
            moved=counts[path, "moved"] > 0,
            spacing=_spacing(change.before[change.asked & change.same]) if stayed else None,
        )


@dataclass(frozen=True)
class _Change:
    """A sample of one weight: its values before the step, which of them a gradient asked to move, and which are the same after it."""

    before: Tensor
    asked: Tensor
    same: Tensor

    def counts(self) -> dict[str, Tensor]:
        """How many values were asked to move, how many of those did not, and how many of all did."""
        return {"asked": self.asked.sum(), "stayed": (self.asked & self.same).sum(), "moved": (~self.same).sum()}


def rehearsed(
    optimizer: Any, structure: Structure, parameters: Mapping[str, nn.Parameter], gradients: Iterable[GradientInfo]
) -> OptimizerStep | None:
    """What a step of this optimizer would do with the gradients that are there: a copy of it takes one, on copies of its weights.

    None where it cannot be copied, holds parts of weights or very many values, or wants more than gradients.
    """
    if not isinstance(optimizer, Optimizer):
        return None
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(not _is_plain(parameter) for parameter in held) or sum(parameter.numel() for parameter in held) > _COPIED:
        return None
    try:
        twin = copy.deepcopy(optimizer)
        copies = [parameter for group in twin.param_groups for parameter in group["params"]]
        for parameter, original in zip(copies, held, strict=True):
            parameter.grad = None if original.grad is None else original.grad.clone()
        of = {id(original): parameter for original, parameter in zip(held, copies, strict=True)}
        updates = Updates(structure, {path: of.get(id(parameter), parameter) for path, parameter in parameters.items()})
        updates.begin()
        updates.before_step()
        twin.step()
    except Exception:  # of whatever optimizer somebody has written
        return None
    updates.after_step(twin, optimizer)
    return updates.found(frozenset(row.path for row in gradients if row.state == "ok"))


def _schedule_of(optimizer: Optimizer) -> LRScheduler | None:
    """The schedule of its learning rate that has gone furthest; an optimizer does not know who schedules it. None where nobody does."""
    schedules = (other for other in gc.get_objects() if issubclass(type(other), LRScheduler))
    own = (schedule for schedule in schedules if schedule.optimizer is optimizer)
    return max(own, key=lambda schedule: schedule.last_epoch, default=None)


def _is_plain(parameter: Tensor) -> bool:
    """Whether its values lie in this process and can be compared."""
    return (
        not is_part(parameter)
        and type(parameter) in (torch.nn.Parameter, torch.Tensor)
        and parameter.layout is torch.strided
        and not parameter.is_meta
    )


def _sample(parameter: Tensor) -> Tensor:
    flat = parameter.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _SAMPLE)]


def _gradient(parameter: Tensor) -> Tensor | None:
    gradient = parameter.grad
    if gradient is None:
        return None
    return _sample(gradient.to_dense() if gradient.is_sparse else gradient).clone()


def _spacing(values: Tensor) -> float:
    """The median distance from these values to the next that their dtype can hold."""
    info = torch.finfo(values.dtype)
    exponents = torch.floor(torch.log2(values.float().abs().clamp(min=info.tiny)))
    return float((torch.exp2(exponents) * info.eps).median())
