"""What a run that raised says: where it happened, in whose code, and what to do about it."""

from __future__ import annotations

import inspect
import traceback
from typing import TYPE_CHECKING

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from peft_inspect.records import InspectionError, text_of
from peft_inspect.run.weightless import WeightlessError
from peft_inspect.structure.source.lines import is_machinery, is_peft

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType


def explained(error: BaseException, model: nn.Module, phase: str = "forward") -> InspectionError:
    """The error of a run as one that names the module it happened in; the detail is the last frames of code that is not machinery."""
    paths = {id(module): path for path, module in model.named_modules()}
    where, module, shown = None, None, []
    frames = list(traceback.walk_tb(error.__traceback__))
    for frame, number in frames:
        inside = frame.f_locals.get("self")
        if frame.f_code.co_filename == nn.modules.module.__file__ and isinstance(inside, nn.Module):
            module, where = inside, paths.get(id(inside), where)
        if not is_machinery(frame.f_code) and not is_peft(frame.f_code):
            shown.append((frame, number))
    detail = "".join(traceback.StackSummary.extract(iter(shown[-6:])).format())
    place = f" in module {where or 'the model itself'!r} ({type(module).__name__})" if module is not None else ""
    if isinstance(error, WeightlessError):
        return InspectionError(f"{error}{place}. Run it with numbers: --weights random --reduce", detail=detail)
    advice = _unasked(error, [frame for frame, _ in frames]) or _advice(error, model, module, where)
    return InspectionError(f"the {phase} raised {type(error).__name__}{place}: {_said(error, model)}. {advice}", detail=detail)


def _said(error: BaseException, model: nn.Module) -> str:
    """The message, with modules that Python spelt out in it layer by layer called by their class."""
    text = text_of(error).removeprefix(type(error).__name__).removeprefix(": ")
    kind = text.partition("(")[0]
    for module in model.modules() if "\n" in text else ():
        if type(module).__name__ == kind and text.startswith(spelt := repr(module)):
            return f"{kind}(…){text.removeprefix(spelt)}"
    return text


def _unasked(error: BaseException, frames: Iterable[FrameType]) -> str | None:
    """What to do where the forward of a PeftModel made for a task passes on inputs that its base has no use for."""
    if not isinstance(error, TypeError):
        return None
    for frame in frames:
        wrapper = frame.f_locals.get("self")
        if frame.f_code.co_name == "forward" and isinstance(wrapper, PeftModel) and type(wrapper) is not PeftModel:
            base = wrapper.get_base_model()
            takes = inspect.signature(base.forward).parameters
            for name in inspect.signature(type(wrapper).forward).parameters:
                if f"'{name}'" in text_of(error) and name not in takes and frame.f_locals.get(name) is None:
                    task = wrapper.active_peft_config.task_type
                    return (
                        f"task_type={getattr(task, 'value', task)} makes PEFT wrap the model in {type(wrapper).__name__}, which passes "
                        f"{name!r} on, and {type(base).__name__} takes none: leave task_type out of the LoRA config"
                    )
    return None


def _advice(error: BaseException, model: nn.Module, module: nn.Module | None, where: str | None) -> str:
    """What to do: PEFT adapts whatever is a linear layer, also one that returns more than a tensor, and ties whatever shares a weight."""
    wrapper, _, copied = (where or "").partition(".modules_to_save.")
    if copied and type(module) is not type(original := model.get_submodule(f"{wrapper}.original_module")):
        return (
            f"PEFT trains a {type(module).__name__} in the place of this {type(original).__name__}, because ensure_weight_tying ties it to "
            "the input embeddings: set ensure_weight_tying=False, or train other modules"
        )
    code = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__) if not is_machinery(frame.f_code)]
    if isinstance(module, BaseTunerLayer) and where and code and is_peft(code[-1]):
        base, name = type(module.get_base_layer()).__name__, where.rpartition(".")[2]
        return (
            f"PEFT cannot adapt this module: its base layer is a {base}, which does not behave as the layer type that PEFT takes it for. "
            f"Leave it out: --exclude-modules {name} (exclude_modules=[{name!r}])"
        )
    if module is not None and getattr(type(module), "forward", None) is nn.Module.forward:
        parts = [
            f"{name} ({type(child).__name__})"
            for name, child in module.named_children()
            if getattr(type(child), "forward", None) is not nn.Module.forward
        ]
        return (
            f"{type(module).__name__} has no forward: what is trained are its parts, {', '.join(parts)}. Say how with --loss "
            "file.py:loss, a function of the model and the batch that returns the loss, and --batch file.py:make_batch"
        )
    return "If the batch does not fit this model, pass your own with --batch file.py:make_batch"
