"""What makes a modality, and how the model itself counts the features that its placeholders stand for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from peft_inspect.batch.documented import give_documented
from peft_inspect.batch.plan import Layout, Plan
from peft_inspect.outside import from_outside
from peft_inspect.records import text_of


@dataclass(frozen=True)
class Modality:
    """One kind of input beside text.

    `words` and `short` are how configs name its placeholder: `image_token_id`, `boi_token_id`.
    """

    name: str
    content: str  # what a batch with it exercises
    argument: str  # its main input
    layouts: Callable[[Plan], Iterable[Layout]]  # ways to give it, the one with the most evidence first
    methods: tuple[str, ...] = ()  # of models, that compute its features
    words: str = ""
    short: str = ""

    def token(self, plan: Plan) -> int | None:
        """The placeholder that its features replace."""
        return _token(plan, rf"^({self.words})(_context|_patch|_pad|_soft)?_token_(id|index)$") if self.words else None

    def around(self, plan: Plan) -> tuple[int | None, int | None]:
        """The tokens before and after a run of placeholders."""
        named = rf"^({self.words}|vision)_({{}})_token_(id|index)$|^{{}}{self.short}_token_(id|index)$"
        return _token(plan, named.format("start|bos|begin", "bo")), _token(plan, named.format("end|eos", "eo"))

    def readers(self, plan: Plan) -> list[Callable[..., Any]]:
        """Methods that compute its features, outermost first; none where they want the placeholders that they should count."""
        models = (module for model in plan.receiver.models for module in model.modules() if isinstance(module, PreTrainedModel))
        found = [getattr(model, name) for model in models for name in self.methods if hasattr(model, name)]
        return found if found and "input_ids" not in inspect.signature(found[0]).parameters else []


def _token(plan: Plan, names: str) -> int | None:
    return next((token for name, token in plan.special.items() if re.search(names, name)), None)


def first_accepted(plan: Plan, readers: list[Callable[..., Any]], layouts: Iterable[Layout]) -> tuple[Layout, int] | str:
    """The first layout that the outermost of `readers` takes, with the number of features it makes of it.

    What it passes on to the others is given where that is documented. Where it takes none: why the first was refused.
    """
    parameters = {name: parameter for read in reversed(readers) for name, parameter in inspect.signature(read).parameters.items()}
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in inspect.signature(readers[0]).parameters.values())
    required = {name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    accepted, refused = set(parameters) if open_ended else set(inspect.signature(readers[0]).parameters), ""
    for layout in layouts:
        before = dict(plan.inputs)
        for name in required - set(layout):
            give_documented(plan, name)
        given = {name: value for name, value in plan.inputs.items() if name in accepted}
        given |= {name: value for name, value in layout.items() if open_ended or name in accepted}
        try:
            with torch.no_grad():
                return layout, count_features(readers[0](**given), text_width(plan), _projected(plan))
        except Exception as error:  # whatever the model raises on a wrong layout
            if from_outside(error):
                raise
            refused = refused or text_of(error).splitlines()[0]
        plan.inputs.clear()
        plan.inputs.update(before)
    return refused or "no layout to try"


def text_width(plan: Plan) -> int | None:
    """Width of the embeddings that features are written over."""
    try:
        config = plan.config.get_text_config() if plan.config is not None else None
    except ValueError:  # several text models
        return None
    width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None)
    return width if isinstance(width, int) else None


def _projected(plan: Plan) -> set[int]:
    """Widths that a linear layer of a projector turns into that of the text: the forward projects such features itself."""
    width = text_width(plan)
    layers = ((path, layer) for path, layer in plan.receiver.module.named_modules() if isinstance(layer, torch.nn.Linear))
    return {layer.in_features for path, layer in layers if "projector" in path and layer.out_features == width}


def count_features(output: Any, width: int | None, projected: Container[int] = ()) -> int:
    """Tokens that the features fill, however they are packed: tensors in lists, or an output with a pooled field.

    Args:
        output: of the method that computes features.
        width: of the embeddings that they are written over.
        projected: other widths that the forward brings to that of the embeddings later.

    Raises:
        ValueError: they fill no whole number of tokens.
    """
    pooled = getattr(output, "pooler_output", None)
    if pooled is None:
        pooled = getattr(output, "last_hidden_state", None)
    if pooled is None:
        pooled = output[0] if isinstance(output, tuple) and len(output) and not isinstance(output[0], tuple) else output
    tensors = _tensors(pooled)
    if width is None or (any(tensor.shape[-1] % width for tensor in tensors) and sum(tensor.numel() for tensor in tensors) % width):
        if width is not None and tensors[0].shape[-1] not in projected:
            raise ValueError(f"features of width {tensors[0].shape[-1]} for embeddings of width {width}")
        return sum(tensor.numel() // tensor.shape[-1] for tensor in tensors)
    return sum(tensor.numel() for tensor in tensors) // width


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    raise TypeError(f"not a tensor of features: {type(value).__name__}")
