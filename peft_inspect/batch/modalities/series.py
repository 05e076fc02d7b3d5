"""Time series: the values of the past with what goes with them, and those of the future that a decoder is trained on."""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.batch.documented import documented
from peft_inspect.batch.fields import find
from peft_inspect.batch.modalities.modality import Modality
from peft_inspect.batch.plan import Layout, Plan

_FUTURE = ("future_values", "future_time_features")


def _layouts(plan: Plan) -> Iterator[Layout]:
    """As documented; else a list of series, each as long as the model looks back."""
    values = documented(plan, "past_values")
    if values is not None:
        future = {name: documented(plan, name) for name in _FUTURE if plan.wants(name)}
        yield {"past_values": values, **{name: value for name, value in future.items() if value is not None}}
        return
    context = find(plan.config, "context_length")
    if isinstance(context, int):
        yield {"past_values": [plan.floats(context)]}


MODALITIES = (Modality("series", "series", "past_values", _layouts),)
