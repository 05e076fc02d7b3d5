"""A batch for a denoiser, told from the names that its forward and its config use throughout diffusers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

_SIZE, _TOKENS, _PIXELS = 2, 7, 16  # of the batch, of the prompt, and of an image whose config names no size
_PROMPT_WIDTHS = ("joint_attention_dim", "caption_channels", "text_embed_dim", "text_dim", "cross_attention_dim")


def denoising_batch(forward: Callable[..., Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Inputs for every required parameter of `forward`, and for those that the config makes required.

    Args:
        forward: the model's forward.
        config: the model's config.

    Returns:
        Keyword inputs, the latents of shape (batch, channels, height, width), or (batch, tokens, channels) where
        positions are passed along; None where a parameter means something unknown.
    """
    batch: dict[str, Any] = {}
    parameters = {name: parameter for name, parameter in inspect.signature(forward).parameters.items() if name != "self"}
    for name, parameter in parameters.items():
        value = _input(name, parameters.keys(), config)
        if value is not None:
            batch[name] = value
        elif parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            return None
    return batch


def _input(name: str, names: Any, config: Mapping[str, Any]) -> Any:
    if name in ("sample", "hidden_states"):
        return _latents("img_ids" in names, config)
    if name in ("timestep", "timesteps"):
        return torch.ones(_SIZE, dtype=torch.long)
    if name == "encoder_hidden_states":
        width = next((config[key] for key in _PROMPT_WIDTHS if isinstance(config.get(key), int)), None)
        return None if width is None else torch.zeros(_SIZE, _TOKENS, width)
    if name == "pooled_projections" and config.get("pooled_projection_dim"):
        return torch.zeros(_SIZE, config["pooled_projection_dim"])
    if name == "guidance" and config.get("guidance_embeds"):
        return torch.ones(_SIZE)
    if name == "class_labels" and (config.get("num_class_embeds") or config.get("num_embeds_ada_norm")):
        return torch.zeros(_SIZE, dtype=torch.long)
    if name in ("img_ids", "txt_ids"):
        tokens = _PIXELS if name == "img_ids" else _TOKENS
        return torch.zeros(tokens, len(config.get("axes_dims_rope") or (1, 1, 1)))
    if name == "added_cond_kwargs" and config.get("addition_embed_type") == "text_time":
        times = 6  # original size, crop and target size, two numbers each
        text = config["projection_class_embeddings_input_dim"] - times * config["addition_time_embed_dim"]
        return {"text_embeds": torch.zeros(_SIZE, text), "time_ids": torch.zeros(_SIZE, times)}
    return None


def _latents(packed: bool, config: Mapping[str, Any]) -> torch.Tensor:
    channels = config.get("in_channels") or 4
    if packed:
        return torch.zeros(_SIZE, _PIXELS, channels)
    size = config.get("sample_size") or _PIXELS
    return torch.zeros(_SIZE, channels, *(size if isinstance(size, list | tuple) else (size, size)))
