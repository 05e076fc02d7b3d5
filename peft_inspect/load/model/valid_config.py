"""The nearest valid configuration: the defaults of some model types contradict themselves, and no forward runs on them."""

from __future__ import annotations

import importlib
import inspect
import math
import re
from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig

from peft_inspect.load.model.config_tree import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PLACEHOLDER = re.compile(r"^(image|video|audio|speech)_token_(id|index)$")
_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts")
_TOP_K = 2
_UNSET = (None, "None", "[]", "()")
_PADDING = 1
_WINDOW = 4096
_AXES = 3
# Fields that are empty by default though every forward reads them, with a usual value for each.
_EMPTY: dict[str, Callable[[PretrainedConfig], Any]] = {
    "class_thresholds": lambda config: [0.5] * config.num_labels,
    "class_order": lambda config: list(range(config.num_labels)),
}


def make_valid(config: PretrainedConfig) -> tuple[str, ...]:
    """Change, in place, what contradicts itself in a default configuration.

    Returns:
        One line for the report for every field that was changed.
    """
    before = {(path, name): str(value) for path, part in parts(config) for name, value in _plain(part)}
    text = _text(config)
    for _, part in parts(config):
        _number_of_heads(part)
        _rotary_sections(part)
        _experts_per_token(part)
        _hybrid(part)
        _shuffled_patches(part)
        _shuffled_width(part)
        _empty(part)
        _sliding_window(part)
        _counted_positions(part)
        if part is not text:
            _width_of_features(part, text)
            _width_of_encoder(part, config)
        _pooled_patches(part)
        _width_of_stages(part)
    _padding(config)
    for _, part in parts(config):
        _placeholders(part, _text(part))
    now = {(path, name): str(value) for path, part in parts(config) for name, value in _plain(part)}
    return tuple(
        _note(f"{path}{name}", before.get((path, name)), value) for (path, name), value in now.items() if value != before.get((path, name))
    )


def _note(key: str, before: str | None, value: str) -> str:
    if before in _UNSET:
        return f"the default configuration leaves {key} open: {value} is used"
    return f"the default {key} contradicts other defaults: {value} is used instead"


def _text(config: PretrainedConfig) -> PretrainedConfig:
    """The part for text; of several (an encoder and a decoder) none stands out, and the whole counts."""
    try:
        return config.get_text_config()
    except ValueError:
        return config


def _plain(config: PretrainedConfig) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(config).items() if not isinstance(value, PretrainedConfig) and not name.startswith("_"))


def _integer(config: PretrainedConfig, name: str) -> int | None:
    value = vars(config).get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _placeholders(config: PretrainedConfig, text: PretrainedConfig) -> None:
    """Placeholder tokens that are not set, or lie outside the vocabulary, move to its end."""
    vocab = _integer(text, "vocab_size")
    if vocab is None or text is config:
        return
    read = {name for name in re.findall(r"self\.config\.(\w+_token_(?:id|index))\b", _modelling_code(config)) if not hasattr(config, name)}
    names = [*(name for name in vars(config) if _PLACEHOLDER.match(name)), *sorted(read)]
    taken = {getattr(config, name, None) for name in names}
    free = (token for token in range(vocab - 1, 0, -1) if token not in taken)
    for name in names:
        value = getattr(config, name, None)
        if value is None or (isinstance(value, int) and not 0 <= value < vocab):
            setattr(config, name, next(free))


def _rotary_sections(config: PretrainedConfig) -> None:
    """Sections of a multimodal rotary embedding share half the rotated part of a head."""
    rope = vars(config).get("rope_parameters")
    sections = rope.get("mrope_section", _assumed_sections(config)) if isinstance(rope, dict) else None
    width, heads = _integer(config, "hidden_size"), _integer(config, "num_attention_heads")
    if not isinstance(rope, dict) or not sections or not width or not heads:
        return
    head = _integer(config, "head_dim") or width // heads
    partial = rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None)) or 1.0
    half = int(head * partial) // 2
    if sum(sections) != half:
        scaled = [section * half // sum(sections) for section in sections]
        scaled[0] += half - sum(scaled)
        config.rope_parameters = {**rope, "mrope_section": scaled}


def _empty(config: PretrainedConfig) -> None:
    for name, usual in _EMPTY.items():
        if name in vars(config) and not getattr(config, name):
            setattr(config, name, usual(config))


def _sliding_window(config: PretrainedConfig) -> None:
    """A model that makes the mask of its sliding layers whether it has any or not wants to know their window."""
    if vars(config).get("sliding_window", 0) is None and re.search(
        r'^ +"sliding_attention": create_sliding_window_causal_mask\(', _modelling_code(config), re.MULTILINE
    ):
        config.sliding_window = _WINDOW


def _counted_positions(config: PretrainedConfig) -> None:
    """Positions that are counted from the padding token on need one."""
    if vars(config).get("pad_token_id", 0) is None and re.search(
        r"create_position_ids_from_input_ids\(input_ids, self\.padding_idx\b", _modelling_code(config)
    ):
        config.pad_token_id = _PADDING


def _number_of_heads(config: PretrainedConfig) -> None:
    """Heads share the width evenly, unless their size is set apart."""
    width, heads = _integer(config, "hidden_size"), _integer(config, "num_attention_heads")
    if width and heads and width % heads and "rope_parameters" in vars(config) and _integer(config, "head_dim") in (None, width // heads):
        config.num_attention_heads = next(count for count in range(heads, 0, -1) if width % (2 * count) == 0)
        if _integer(config, "head_dim") is not None:
            config.head_dim = width // config.num_attention_heads


def _assumed_sections(config: PretrainedConfig) -> list[int] | None:
    """The sections that the modelling code falls back to; where it reads them without any to fall back to, one for each axis of a video."""
    code = _modelling_code(config)
    if found := re.search(r'"mrope_section", \[([\d, ]+)\]', code):
        return [int(section) for section in found[1].split(",")]
    return [1] * _AXES if "len(self.mrope_section)" in code else None


def _modelling_code(config: PretrainedConfig) -> str:
    """The source of the module that builds models from this configuration; "" where there is none."""
    module = type(config).__module__.replace("configuration_", "modeling_")
    try:
        return inspect.getsource(importlib.import_module(module))
    except (ImportError, OSError):
        return ""


def _padding(config: PretrainedConfig) -> None:
    """A decoder that starts by shifting its labels fills them with the padding token."""
    eos = getattr(config, "eos_token_id", None)
    if config.is_encoder_decoder and getattr(config, "pad_token_id", eos) is None and eos is not None:
        config.pad_token_id = eos[0] if isinstance(eos, list) else eos


def _experts_per_token(config: PretrainedConfig) -> None:
    if "num_experts_per_tok" in vars(config) and config.num_experts_per_tok is None and any(_integer(config, name) for name in _EXPERTS):
        config.num_experts_per_tok = _TOP_K


def _hybrid(config: PretrainedConfig) -> None:
    """A hybrid without a single attention layer has no cache to ask for its length."""
    depth = _integer(config, "num_hidden_layers")
    if depth and "attn_layer_indices" in vars(config) and not config.attn_layer_indices:
        config.attn_layer_indices = [depth // 2]
    kinds = vars(config).get("layer_types")
    if depth and isinstance(kinds, list) and set(kinds) == {"linear_attention"} and _integer(config, "num_attention_heads"):
        config.layer_types = [*kinds[: depth // 2], "full_attention", *kinds[depth // 2 + 1 :]]


def _width_of_features(part: PretrainedConfig, text: PretrainedConfig) -> None:
    """What a tower hands to the language model is as wide as its embeddings."""
    width = _integer(text, "hidden_size")
    if width is None or text is part or ("num_hidden_layers" in vars(part) and "vocab_size" in vars(part)):
        return
    if "projector_hidden_size" in vars(part):  # a projector of two widths stands between them
        return
    if _integer(part, "out_hidden_size") not in (None, width):
        part.out_hidden_size = width
    elif (
        _integer(part, "embed_dim") is not None
        and "spatial_merge_size" in vars(part)
        and _integer(part, "hidden_size") not in (None, width)
    ):
        part.hidden_size = width


def _width_of_encoder(part: PretrainedConfig, config: PretrainedConfig) -> None:
    """A projector reads features as wide as the encoder makes them."""
    encoder = vars(config).get("encoder_config")
    width = _integer(encoder, "hidden_dim") if isinstance(encoder, PretrainedConfig) else None
    if width is not None and part is not config and _integer(part, "encoder_hidden_size") not in (None, width):
        part.encoder_hidden_size = width


def _width_of_stages(config: PretrainedConfig) -> None:
    """Where one vision encoder follows another, the first gives what the second reads."""
    first, second = vars(config).get("sam_config"), vars(config).get("encoder_config")
    if not isinstance(first, PretrainedConfig) or not isinstance(second, PretrainedConfig):
        return
    channels, width = vars(first).get("downsample_channels"), _integer(second, "hidden_size")
    if isinstance(channels, list) and width is not None and channels[-1] != width:
        first.downsample_channels = [*channels[:-1], width]


def _shuffled_patches(config: PretrainedConfig) -> None:
    """Where neighbouring patches become one feature, they come in whole groups."""
    factor = _integer(config, "pixel_shuffle_factor") or _integer(config, "scale_factor")
    vision = vars(config).get("vision_config")
    if factor is None or not isinstance(vision, PretrainedConfig):
        return
    size, patch = _integer(vision, "image_size"), _integer(vision, "patch_size")
    if size is not None and patch is not None and size // patch % factor:
        vision.image_size = max(size // (patch * factor), 1) * patch * factor


def _shuffled_width(config: PretrainedConfig) -> None:
    """Where neighbouring patches become one feature, it is as wide as all of them, and leaves as wide as the projector makes it."""
    ratio, width = vars(config).get("pixel_shuffle_ratio"), _integer(config, "hidden_size")
    if not isinstance(ratio, float) or width is None or "projector_output_dim" not in vars(config):
        return
    config.intermediate_size = int(width / ratio**2)
    if "vision_output_dim" in vars(config):
        config.vision_output_dim = config.projector_output_dim


def _pooled_patches(config: PretrainedConfig) -> None:
    """An image has at least as many patches as the tokens they are pooled to."""
    tokens, vision = _integer(config, "mm_tokens_per_image"), vars(config).get("vision_config")
    queries = vars(config).get("projector_patch_to_query_dict")
    if isinstance(queries, dict):
        tokens = min(map(int, queries))
    if tokens is None or not isinstance(vision, PretrainedConfig):
        return
    size, patch, side = _integer(vision, "image_size"), _integer(vision, "patch_size"), math.isqrt(tokens)
    if size is not None and patch is not None and size // patch < side:
        vision.image_size = side * patch
