"""What a program does to a model before its step: the line that froze a weight, wrote a config, built the optimizer, took an adapter off.

Noted as it happens, one line per object, so that a finding on the state that this left behind can show who left it.
"""

from __future__ import annotations

import itertools
import linecache
import re
import sys
from functools import partial, wraps
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from peft_inspect.records import OptimizerOrigin
from peft_inspect.reversible import hooked, patched
from peft_inspect.run import patches
from peft_inspect.run.layer_states import LayerStates
from peft_inspect.structure.source.lines import Line, is_library, is_machinery, line_above, source
from peft_inspect.structure.source.statements import returning_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

    from peft_inspect.records import Source

_WRITES_DATA = re.compile(r"\.data\b(\[[^=]*\])?\s*([-+*/|&]|//)?=(?!=)|\.data\.\w+_\(")


class Changes:
    """The last line of the user's that changed each of these, as long as it is watched; `states` are those of the adapter layers."""

    def __init__(self) -> None:
        self.states = LayerStates()
        self._frozen: Any = WeakIdKeyDictionary()
        self._unfrozen: Any = WeakIdKeyDictionary()
        self._built: Any = WeakIdKeyDictionary()  # configs of models and adapters, optimizers, PeftModels
        self._count = itertools.count()
        self._when: Any = WeakIdKeyDictionary()  # optimizers, by when they were made
        self._used_up: Any = WeakIdKeyDictionary()  # optimizers, by the generator they were given that had nothing left
        self._weights: Any = WeakIdKeyDictionary()  # weights of adapters, by when and at which line they were put into their model
        self.is_built = False  # what is written into weights from now on is written by the training
        self._written: Any = WeakIdKeyDictionary()  # of these, what was written into past any optimizer
        self._copied: Any = WeakIdKeyDictionary()  # deep copies of weights of adapters, by the address of what each is a copy of
        self._cast: Any = WeakIdKeyDictionary()  # parameters that were cast to another dtype, and when
        self._added: Any = WeakIdKeyDictionary()  # configs of adapters, by when their layers were made
        self._adapted: Line | None = None
        self._optimizer: Line | None = None
        self._taken_off: Line | None = None
        self._ran: Any = WeakIdKeyDictionary()  # modules that were called, by the line and the last sizes of what they gave
        self._checkpointing: Line | None = None
        self._clipping: Line | None = None

    def watching(self) -> patched:
        """What is changed inside is noted."""
        tuners: list[type] = [BaseTuner]
        for tuner in tuners:  # grows while it is walked
            tuners += list[type](type.__subclasses__(tuner))
        taking_off = ((tuner, name) for tuner in dict.fromkeys(tuners) for name in patches.TAKEN_OFF if name in vars(tuner))
        return patched(
            *self.states.everywhere(),
            (*patches.REQUIRES_GRAD, self._setting),
            (*patches.REQUIRES_GRAD_CALLED, self._calling),
            (*patches.CHECKPOINTING_ENABLED, partial(self._noting, "_checkpointing")),
            (*patches.CLIP_GRADIENTS, partial(self._noting, "_clipping")),
            *((*place, self._building) for place in patches.BUILT),
            *((*place, self._casting) for place in patches.CASTS),
            (*patches.COPIED, self._copying),
            (*patches.ADAPTER_ADDED, self._adding),
            *((*place, partial(self._noting, "_taken_off")) for place in taking_off),
        )

    def calls(self, off: Callable[[], Source | None]) -> hooked:
        """What modules are called inside, and what they give, is noted as well; `off` tells the line that has switched gradients off."""
        return hooked(partial(register_module_forward_hook, partial(self._called, off)))

    def _called(self, off: Callable[[], Source | None], module: nn.Module, _args: Any, output: Any) -> None:
        values = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else (output,)
        sizes = frozenset(value.shape[-1] for value in values if isinstance(value, torch.Tensor) and value.dim())
        self._ran[module] = off() or source(_users(line_above(sys._getframe()))), sizes

    def ran_before(self, module: nn.Module) -> tuple[Source | None, frozenset[int]] | None:
        """Where this module was last run before the step, and the last dimensions of what it gave; None where nothing called it."""
        return self._ran.get(module)  # type: ignore[no-any-return]

    def writing(self) -> patched:
        """What is written inside into weights of adapters is noted: before the first step, by nobody but the user's own code."""
        return patched((*patches.DATA, self._data), *((*place, self._writing) for place in patches.WRITES))

    def frozen_by(self, parameter: nn.Parameter) -> Line | None:
        """The line that froze this parameter, which had required a gradient before."""
        return self._frozen.get(parameter)  # type: ignore[no-any-return]

    def unfrozen_by(self, parameter: nn.Parameter) -> Line | None:
        """The line that made this parameter require a gradient, which it had not before."""
        return self._unfrozen.get(parameter)  # type: ignore[no-any-return]

    def built_by(self, thing: Any) -> Line | None:
        """The line that made this config, optimizer, schedule or PeftModel; of a wrapper around an optimizer, the one inside.

        Of a schedule that asks a function of the user's, the line that gives what the function returns.
        """
        for function in getattr(thing, "lr_lambdas", ()):
            code = getattr(getattr(function, "__func__", function), "__code__", None)
            if code is not None and not is_machinery(code) and not is_library(code):
                return returning_line(code) or (code, code.co_firstlineno)
        inner = _inside(thing, self._built)
        return None if inner is None else self._built[inner]

    def origin(self, optimizer: Any, parameters: Iterable[nn.Parameter]) -> OptimizerOrigin | None:
        """How an optimizer was made, for a model with these parameters; None where that was not seen."""
        inner = _inside(optimizer, self._when)
        if inner is None:
            return None
        added: list[tuple[int, Line | None]] = [self._weights[weight] for weight in parameters if weight in self._weights]
        later = next((line for when, line in added if when > self._when[inner]), None)
        return OptimizerOrigin(source(self._built.get(inner)), source(later), source(self._used_up.get(inner)))

    def copies(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, str]:
        """Those of these parameters of a model that are deep copies of the weights of an adapter in it, by the path of those."""
        paths = {id(parameter): path for path, parameter in parameters.items()} if self._copied else {}
        found = ((path, self._copied.get(parameter)) for path, parameter in parameters.items()) if paths else ()
        return {path: paths[of] for path, of in found if of in paths}

    def written_by(self, weight: nn.Parameter) -> Line | None:
        """The line that last wrote into this weight of an adapter, before the first step."""
        return self._written.get(weight)  # type: ignore[no-any-return]

    def cast_by(self, weight: nn.Parameter, base: nn.Parameter | None) -> Line | None:
        """The line that cast a weight; where PEFT made it like the base weight that it adapts, the one that cast that."""
        when, line = self._cast.get(weight, (-1, None))
        added, _ = self._weights.get(weight, (0, None))
        return line if when > added else self._cast.get(base, (-1, None))[1]  # type: ignore[no-any-return]

    @property
    def adapted_by(self) -> Line | None:
        """The last line that put an adapter on any model."""
        return self._adapted

    @property
    def optimizer_by(self) -> Line | None:
        """The line that made the last optimizer, which may be gone again."""
        return self._optimizer

    def last_built(self, things: Iterable[Any]) -> Line | None:
        """The line that made the last of them."""
        wanted = {id(thing) for thing in things}
        return next((line for thing, line in reversed(list(self._built.items())) if id(thing) in wanted), None)

    def added_by(self, config: Any) -> Line | None:
        """The line that put the layers of the adapter with this config into the model."""
        return self._added.get(config)  # type: ignore[no-any-return]

    @property
    def taken_off_by(self) -> Line | None:
        """The last line that took adapters out of any model."""
        return self._taken_off

    @property
    def checkpointing_by(self) -> Line | None:
        """The line that switched activation checkpointing on in a model of transformers."""
        return self._checkpointing

    @property
    def clipped_by(self) -> Line | None:
        """The last line that clipped gradients by their norm."""
        return self._clipping

    def _note(self, parameter: nn.Parameter, *, before: bool, after: bool) -> None:
        if before != after:
            (self._unfrozen if after else self._frozen)[parameter] = _users(line_above(sys._getframe(1)))

    def _setting(self, original: Any) -> property:
        def get(parameter: nn.Parameter) -> bool:
            required: bool = original.__get__(parameter)
            return required

        def set_(parameter: nn.Parameter, value: bool) -> None:
            before = original.__get__(parameter)
            original.__set__(parameter, value)
            self._note(parameter, before=before, after=bool(value))

        return property(get, set_)

    def _calling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def requires_grad_(parameter: nn.Parameter, requires_grad: bool = True) -> Any:
            before = parameter.requires_grad
            result = original(parameter, requires_grad)
            self._note(parameter, before=before, after=requires_grad)
            return result

        return requires_grad_

    def _building(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def build(thing: Any, *args: Any, **kwargs: Any) -> Any:
            frame = sys._getframe()
            while frame.f_back is not None and frame.f_back.f_locals.get("self") is thing:  # generated for a dataclass, it has no file
                frame = frame.f_back
            self._built[thing] = line = _users(line_above(frame))
            if isinstance(thing, Optimizer):
                self._optimizer = line
                self._when[thing] = next(self._count)
                self._note_used_up(thing, *args, **kwargs)
            return original(thing, *args, **kwargs)

        return build

    def _adding(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def inject_adapter(tuner: Any, model: Any, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
            self._adapted = line = _users(line_above(sys._getframe()))
            config = getattr(tuner, "peft_config", {}).get(adapter_name)
            if config is not None:
                self._added[config] = line
            result = original(tuner, model, adapter_name, *args, **kwargs)
            layers, when = (module for module in model.modules() if isinstance(module, BaseTunerLayer)), next(self._count)
            for weights in (getattr(layer, name) for layer in layers for name in layer.adapter_layer_names):
                for weight in weights.parameters():
                    self._weights.setdefault(weight, (when, line))
            return result

        return inject_adapter

    def _note_used_up(self, optimizer: Any, params: Any = (), *_args: Any, **_kwargs: Any) -> None:
        groups = [group.get("params") for group in params if isinstance(group, dict)] if isinstance(params, (list, tuple)) else []
        for given in groups:
            if isinstance(given, GeneratorType) and given.gi_frame is None:
                self._used_up[optimizer] = given.gi_code, given.gi_code.co_firstlineno

    def _copying(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def copy(parameter: nn.Parameter, memo: Any) -> Any:
            result = original(parameter, memo)
            if parameter in self._weights:
                self._copied[result], self._weights[result] = id(parameter), self._weights[parameter]
            return result

        return copy

    def _casting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def cast(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            before = {name: parameter.dtype for name, parameter in module.named_parameters()}
            result = original(module, *args, **kwargs)
            changed = [parameter for name, parameter in module.named_parameters() if parameter.dtype is not before.get(name)]
            if changed:
                noted = next(self._count), _users(line_above(sys._getframe()))
                self._cast.update((parameter, noted) for parameter in changed)
            return result

        return cast

    def _writing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def write(parameter: nn.Parameter, *args: Any, **kwargs: Any) -> Any:
            if not self.is_built and parameter in self._weights:
                self._written[parameter] = _users(line_above(sys._getframe()))
            return original(parameter, *args, **kwargs)

        return write

    def _data(self, original: Any) -> property:
        """Whoever asks for the data of a weight can write there: whether a line does, its text says."""

        def note(parameter: nn.Parameter) -> None:
            line = _users(line_above(sys._getframe(1))) if not self.is_built and parameter in self._weights else None
            if line is not None and _WRITES_DATA.search(linecache.getline(line[0].co_filename, line[1])):
                self._written[parameter] = line

        def get(parameter: nn.Parameter) -> Any:
            note(parameter)
            return original.__get__(parameter)

        def set_(parameter: nn.Parameter, value: Tensor) -> None:
            if not self.is_built and value.dtype is not parameter.dtype:
                self._cast[parameter] = next(self._count), _users(line_above(sys._getframe()))
            note(parameter)
            original.__set__(parameter, value)

        return property(get, set_)

    def _noting(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            setattr(self, name, _users(line_above(sys._getframe())))
            return original(*args, **kwargs)

        return call


def _inside(thing: Any, known: Any) -> Any:
    """The thing, or what a wrapper such as accelerate's holds, as far as it is known."""
    while thing is not None and thing not in known:
        thing = getattr(thing, "optimizer", None)
    return thing


def _users(line: Line | None) -> Line | None:
    """The line, if it is the user's: what a library or this tool did of itself is nobody's fault."""
    return line if line is not None and not is_library(line[0]) else None
