"""A config shrunk consistently, so that the same architecture runs with real numbers in seconds.

Every kind of layer that occurs is kept once. Widths and head counts are divided by one factor for the whole tree of
configs, so that what had to be equal or divisible stays so; the size of a head never changes, because rotary sections
and normalisation groups are cut to it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from transformers import PretrainedConfig

_DEPTH = re.compile(
    r"^(num_hidden_layers|num_layers|n_layers?|depth|(en|de)coder_(num_hidden_)?layers|num_(en|de)coder_layers|num_\w+_hidden_layers|"
    r"num_\w*(attention|transformer|resampler|predictor|pooling|adapter|conv|main|mtp|nextn_predict|language)_layers|resampler_depth|"
    r"\w+_depth|\w+_num_hidden_layers|\w+_num_layers|num_blocks|encoder_depth|decoder_depth)$"
)
_STAGES = re.compile(r"^(depths|num_stages_blocks|num_block_repeats|layers_per_stage|encoder_depths)$")
_WIDTH = re.compile(
    r"^(\w+_)?(hidden_sizes?|hidden_dims?|intermediate_sizes?|intermediate_dim|d_model|n_embd|embed_dims?|ffn_dim|ffn_hidden_size|d_ff|n_inner|"
    r"projection_dim|mlp_dim|d_inner|output_dim|out_dim|emb_dim|embedding_size|inner_dim|lru_width|proj_dim|width|dim|inner_hidden_size|"
    r"shared_intermediate_size|expert_intermediate_size|classifier_proj_size|output_hidden_size|fc_dim|text_dim|vision_dim|input_dim)$"
)
_NOT_WIDTH = re.compile(
    r"head_dim$|rope|patch|^dim$|position|mel|qk_|v_head|input_feat|codebook_dim|latent_dim|image_width|^width$|feature"
)
_HEADS = re.compile(r"^(\w+_)?(num|n)_(\w+_)?heads?$|^(\w+_)?attention_heads$|^n_heads?$")
_EXPERTS = re.compile(r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts|num_routed_experts|n_experts|num_moe_experts)$")
_TOP_K = re.compile(
    r"^(num_experts_per_tok(en)?|moe_k|moe_topk|top_k_experts|moe_top_k|num_selected_experts|router_top_k|experts_per_token|n_experts_per_tok)$"
)
_GROUPS = re.compile(r"^(n_group|topk_group|num_expert_groups?|expert_groups?|moe_n_groups?)$")
_VOCAB = re.compile(r"^(\w+_)?vocab_size(_\w+)?$")
_TOKEN = re.compile(r"(_token_(id|index|idx|ids)|_token_id_\w+)$")
_PERIOD = re.compile(r"_(period|interval|frequency|every_n_layers?)$")
_START = re.compile(r"^(first_k_dense_replace|moe_layer_start_index|num_dense_layers|num_kv_shared_layers|first_dense_layers)$")

_MAX_LAYERS = 2
_MAX_EXPERTS = 4
_MAX_VOCAB = 1024
_MAX_WIDTH = 256


def reduced(config: PretrainedConfig) -> tuple[PretrainedConfig, str]:
    """A smaller config of the same architecture, and what was reduced to what.

    Args:
        config: left as it is.

    Returns:
        A copy whose model has fewer layers (every kind that occurs is kept), narrower ones, fewer experts (never fewer
        than are chosen per token) and a smaller vocabulary in which all special and placeholder token ids stay valid;
        and one line for the report, "reduced: num_hidden_layers 61→2, …".
    """
    small = copy.deepcopy(config)
    changes: dict[str, str] = {}
    tree = list(_configs(small))
    factor = _width_factor(tree)
    tokens = _TokenMap(tree)
    for prefix, part in tree:
        before = _plain(part)
        _fewer_layers(part)
        _fewer_experts(part)
        _narrower(part, factor)
        tokens.apply(part)
        for name, value in _plain(part).items():
            if value != before[name]:
                changes[prefix + name] = f"{_short(before[name])}→{_short(value)}"
    note = ", ".join(f"{name} {change}" for name, change in changes.items())
    return small, f"reduced: {note}" if note else "reduced: nothing, the config is small already"


def _configs(config: PretrainedConfig, prefix: str = "") -> Iterator[tuple[str, PretrainedConfig]]:
    """The config and every config nested in it, with its dotted prefix, each object once."""
    seen: set[int] = set()

    def walk(part: PretrainedConfig, prefix: str) -> Iterator[tuple[str, PretrainedConfig]]:
        if id(part) in seen:
            return
        seen.add(id(part))
        yield prefix, part
        for name, value in vars(part).items():
            if isinstance(value, PretrainedConfig):
                yield from walk(value, f"{prefix}{name}.")

    yield from walk(config, prefix)


def _plain(config: PretrainedConfig) -> dict[str, Any]:
    return {name: copy.copy(value) for name, value in vars(config).items() if not isinstance(value, PretrainedConfig)}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{len(value)} entries" if isinstance(value, (list, tuple, str)) else text[:24]


def _integers(config: PretrainedConfig, names: re.Pattern[str]) -> dict[str, int]:
    return {
        name: value for name, value in vars(config).items() if names.search(name) and isinstance(value, int) and not isinstance(value, bool)
    }


# --- depth ---------------------------------------------------------------------------------------


def _fewer_layers(config: PretrainedConfig) -> None:
    """Cut every stack of one config, with the lists that describe its layers one by one."""
    depths = {name: depth for name, depth in _integers(config, _DEPTH).items() if depth > _MAX_LAYERS}
    at_least = _MAX_LAYERS
    for name, period in _integers(config, _PERIOD).items():
        if period > _MAX_LAYERS:
            setattr(config, name, _MAX_LAYERS)
            offset = re.sub(_PERIOD, "_offset", name)
            if isinstance(getattr(config, offset, None), int):
                setattr(config, offset, 1)
        at_least = 2 * _MAX_LAYERS
    for depth in set(depths.values()):
        kept = _kept_layers(config, depth, at_least)
        _cut_layer_lists(config, depth, kept)
        for name in depths:
            if depths[name] == depth:
                setattr(config, name, len(kept))
    for name, count in _integers(config, _START).items():
        setattr(config, name, min(count, 1))
    for name, stages in list(vars(config).items()):
        if _STAGES.search(name) and isinstance(stages, (list, tuple)):
            setattr(config, name, type(stages)(min(stage, _MAX_LAYERS) if isinstance(stage, int) else stage for stage in stages))


def _kept_layers(config: PretrainedConfig, depth: int, at_least: int) -> list[int]:
    """The first layer of every kind that the per-layer fields tell apart, and as many more as make `at_least`."""
    kinds = [tuple(str(values[layer]) for values in _per_layer(config, depth).values()) for layer in range(depth)]
    marked = _layer_indices(config, depth)
    kinds = [(*kind, *(layer in indices for indices in marked.values())) for layer, kind in enumerate(kinds)]
    first = {kind: layer for layer, kind in reversed(list(enumerate(kinds)))}
    kept = set(first.values())
    kept.update([layer for layer in range(depth) if layer not in kept][: max(at_least - len(kept), 0)])
    return sorted(kept)


def _per_layer(config: PretrainedConfig, depth: int) -> dict[str, Any]:
    """Fields with one entry per layer."""
    return {
        name: value
        for name, value in vars(config).items()
        if (isinstance(value, (list, tuple)) or (isinstance(value, str) and "pattern" in name))
        and len(value) == depth
        and name != "architectures"
    }


def _layer_indices(config: PretrainedConfig, depth: int) -> dict[str, Any]:
    """Fields that list layers by index."""
    return {
        name: value
        for name, value in vars(config).items()
        if re.search(r"(layers?|_idx|_index(es)?|_indices|_ids|layer_list)$", name)
        and not re.search(r"token|^out_indices$|^_out_indices$", name)
        and isinstance(value, (list, tuple))
        and 0 < len(value) < depth
        and all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < depth for item in value)
    }


def _cut_layer_lists(config: PretrainedConfig, depth: int, kept: list[int]) -> None:
    indices = _layer_indices(config, depth)
    for name, value in _per_layer(config, depth).items():
        chosen = [value[layer] for layer in kept]
        setattr(config, name, "".join(chosen) if isinstance(value, str) else type(value)(chosen))
    for name, value in indices.items():
        setattr(config, name, type(value)(kept.index(layer) for layer in value if layer in kept))
    for name in ("out_indices", "_out_indices", "vision_feature_layer", "vision_feature_layers", "feature_layer", "select_layer"):
        value = vars(config).get(name)
        if isinstance(value, (list, tuple)):
            setattr(config, name, type(value)(_within(item, len(kept)) for item in value))
        elif isinstance(value, int):
            setattr(config, name, _within(value, len(kept)))


def _within(layer: int, depth: int) -> int:
    return max(min(layer, depth), -depth)


# --- experts, widths -----------------------------------------------------------------------------


def _fewer_experts(config: PretrainedConfig) -> None:
    chosen = _integers(config, _TOP_K)
    for name, top_k in chosen.items():
        setattr(config, name, min(top_k, 2))
    _map_numbers(config, _EXPERTS, lambda count: min(count, _MAX_EXPERTS))
    for name in _integers(config, _GROUPS):
        setattr(config, name, 1)


def _map_numbers(
    config: PretrainedConfig, names: re.Pattern[str], change: Callable[[int], int], *, but: re.Pattern[str] | None = None
) -> None:
    """Change the numbers of all fields with such names; lists entry by entry."""
    for name, value in list(vars(config).items()):
        if not names.search(name) or (but is not None and but.search(name)):
            continue
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            setattr(config, name, change(value))
        elif isinstance(value, (list, tuple)) and all(isinstance(item, int) for item in value):
            setattr(config, name, type(value)(change(item) for item in value))


def _width_factor(tree: list[tuple[str, PretrainedConfig]]) -> int:
    """The largest power of two that divides all widths and head counts and is needed at all."""
    widths: list[int] = []
    heads: list[int] = []
    for _, config in tree:
        _map_numbers(config, _WIDTH, lambda width: widths.append(width) or width, but=_NOT_WIDTH)  # type: ignore[func-returns-value]
        _map_numbers(config, _HEADS, lambda count: heads.append(count) or count)  # type: ignore[func-returns-value]
    factor = 1
    while max(widths, default=0) // factor > _MAX_WIDTH and all(width % (2 * factor) == 0 for width in widths):
        if any(count > factor and count % (2 * factor) for count in heads):
            break
        factor *= 2
    return factor


def _narrower(config: PretrainedConfig, factor: int) -> None:
    _map_numbers(config, _WIDTH, lambda width: width // factor, but=_NOT_WIDTH)
    _map_numbers(config, _HEADS, lambda count: max(count // factor, 1))


# --- vocabulary ----------------------------------------------------------------------------------


class _TokenMap:
    """A smaller vocabulary for the whole tree: ids beyond it move to its end, the same id to the same place."""

    def __init__(self, tree: list[tuple[str, PretrainedConfig]]) -> None:
        ids = sorted({token for _, config in tree for token in _token_ids(config)})
        free = iter(token for token in range(_MAX_VOCAB - 1, 0, -1) if token not in ids)
        self.moved = {token: next(free) for token in reversed(ids) if token >= _MAX_VOCAB}

    def apply(self, config: PretrainedConfig) -> None:
        _map_numbers(config, _VOCAB, lambda size: min(size, _MAX_VOCAB))
        _map_numbers(config, _TOKEN, lambda token: self.moved.get(token, token))


def _token_ids(config: PretrainedConfig) -> Iterator[int]:
    for name, value in vars(config).items():
        if _TOKEN.search(name):
            yield from (item for item in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(item, int))
