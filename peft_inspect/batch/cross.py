"""Hidden states of another model for a decoder that stands alone: its cross-attention runs only with them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from peft_inspect.batch.plan import TEXT_LENGTH, Plan

if TYPE_CHECKING:
    import torch

_CROSS = re.compile(
    r"(cross_?attention|cross_?attn|encoder_attn|EncDecAttention|encoder_decoder_attention|encoder_attention)", re.IGNORECASE
)
_KEY = re.compile(r"(^|[._])(k|key|kv|wk|k_proj|kv_proj|key_proj)$")


def make(plan: Plan) -> None:
    """Give `encoder_hidden_states` as wide as the keys of the cross-attention read them."""
    if not plan.wants("encoder_hidden_states") or "decoder_input_ids" in plan.target.parameters:
        return
    width = _width(plan.target.module)
    if width is not None:
        plan.give("encoder_hidden_states", plan.floats(plan.size, TEXT_LENGTH // 2, width))
        plan.give("encoder_attention_mask", plan.ones(plan.size, TEXT_LENGTH // 2))


def _width(module: torch.nn.Module) -> int | None:
    for path, layer in module.named_modules():
        features = getattr(layer, "in_features", None)
        if isinstance(features, int) and _CROSS.search(path) and _KEY.search(path):
            return features
    return None
