"""What an adapter tells about the model it was trained on, beyond the base's own config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import transformers

from peft_inspect.records import AdapterFile, Request

_CLASSIFIERS = ("SEQ_CLS", "TOKEN_CLS")
_HEADS = ("score", "classifier", "out_proj")  # names that transformers gives the last layer of a classification head


def as_trained(request: Request, files: Sequence[AdapterFile]) -> Request:
    """The request, completed so that the base is built as it was when the adapter was trained; what the user said wins.

    An adapter without task type names its base class. A classifier's adapter brings a head whose rows are the labels,
    which the base's config counts by its default.

    Args:
        request: what the user asked for.
        files: the adapters; several share their base.
    """
    adapter = files[0]
    labels = _labels(adapter)
    fields = request.config_fields if labels is None else {"num_labels": labels, **request.config_fields}
    return replace(request, base_class=request.base_class or _base_class(adapter.config), config_fields=fields)


def task_type(files: Sequence[AdapterFile]) -> str | None:
    """PEFT's task type of the adapters."""
    value = files[0].config.get("task_type")
    return None if value is None else str(value)


def _base_class(config: Mapping[str, Any]) -> str | None:
    if config.get("task_type"):
        return None
    name = (config.get("auto_mapping") or {}).get("base_model_class")
    known = getattr(transformers, name, None) if isinstance(name, str) else None
    return name if isinstance(known, type) and issubclass(known, transformers.PreTrainedModel) else None


def _labels(adapter: AdapterFile) -> int | None:
    if adapter.config.get("task_type") not in _CLASSIFIERS:
        return None
    heads = [
        tensor for tensor in adapter.tensors if len(tensor.shape) == 2 and "lora_" not in tensor.key and tensor.key.split(".")[-2] in _HEADS
    ]
    return min((tensor.shape[0] for tensor in heads), default=None)
