"""Adapters in the formats of other tools, told by their keys, and what PEFT would call their tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from peft_inspect.records import AdapterFile, Conversion, TensorInfo
from peft_inspect.rules.adapter_match import adapter_paths

_SIDES = {"lora_down": "lora_A", "lora_up": "lora_B", "lora_a": "lora_A", "lora_b": "lora_B"}


@dataclass(frozen=True)
class Format:
    """How one tool names the tensors of its adapters."""

    name: str
    key: re.Pattern[str]  # of one of its tensors, as a whole
    how: str  # to get from it to PEFT's
    path: Callable[[re.Match[str], AdapterFile], str | None] = lambda _match, _file: None  # the adapter layer that a key is for
    transposed: bool = False


@dataclass(frozen=True)
class Foreign:
    """A file in a format of another tool: its tensors, and those that have a place under another name."""

    format: Format
    tensors: tuple[TensorInfo, ...]
    layers: tuple[str, ...]
    conversion: Conversion | None


def foreign(tensors: tuple[TensorInfo, ...], file: AdapterFile) -> Foreign | None:
    """The format of tensors that find no place; None where they are in none that is known."""
    for form in FORMATS:
        found = {tensor: match for tensor in tensors if (match := form.key.fullmatch(tensor.key))}
        if len(found) * 2 > len(tensors):
            keys = dict(_placed(form, found, file))
            layers = tuple(dict.fromkeys(file.layer_of[key] for key in keys.values()))
            conversion = Conversion(keys, form.transposed) if keys else None
            return Foreign(form, tuple(found), layers or tuple(dict.fromkeys(_layers(form, found, file))), conversion)
    return None


def _placed(form: Format, found: Mapping[TensorInfo, re.Match[str]], file: AdapterFile) -> Iterator[tuple[str, str]]:
    """File key → PEFT's key, where the layer is there and the shape is right."""
    wanted = {(file.layer_of[key], side): key for key in file.expected for side in ("lora_A", "lora_B") if f".{side}.weight" in f".{key}"}
    for tensor, match in found.items():
        path, side = form.path(match, file), _SIDES.get(match.groupdict().get("side") or "")
        key = wanted.get((path, side)) if path and side else None
        shape = tensor.shape[::-1] if form.transposed else tensor.shape
        if key is not None and file.expected[key] == shape:
            yield tensor.key, key


def _layers(form: Format, found: Mapping[TensorInfo, re.Match[str]], file: AdapterFile) -> Iterator[str]:
    yield from (path for match in found.values() if (path := form.path(match, file)) is not None)


def _flattened(match: re.Match[str], file: AdapterFile) -> str | None:
    """The adapter layer whose path has an underscore for every dot."""
    layers = {"_".join(path.split(".")[-depth:]): path for path in adapter_paths(file) for depth in range(2, path.count(".") + 2)}
    words = match["path"].split("_")
    return next((layers[tail] for start in range(len(words)) if (tail := "_".join(words[start:])) in layers), None)


def _dotted(match: re.Match[str], file: AdapterFile) -> str | None:
    """The adapter layer with whose path the key begins."""
    ending = match["path"]
    return next((path for path in adapter_paths(file) if path.endswith(f".{ending}") or path == ending), None)


FORMATS = (
    Format(
        "kohya-ss",
        re.compile(r"lora_(?P<path>[A-Za-z0-9_]+)\.(?:(?P<side>lora_down|lora_up)\.weight|alpha)"),
        "its keys have underscores where a path has dots, and lora_down, lora_up for lora_A, lora_B: convert the file to PEFT's format",
        _flattened,
    ),
    Format(
        "LyCORIS",
        re.compile(r".*\.(hada_w[12]_[ab]|lokr_w[12](_[ab])?|dora_scale|alpha)"),
        "PEFT's LoHa and LoKr have other names: convert it",
    ),
    Format(
        "MLX",
        re.compile(r"(?P<path>.+)\.(?P<side>lora_[ab])"),
        "its lora_a and lora_b are lora_A.weight and lora_B.weight of PEFT, transposed: convert the file",
        _dotted,
        transposed=True,
    ),
    Format(
        "torchtune",
        re.compile(
            r"(decoder\.|encoders?\.\w+\.)?layers\.\d+\.(attn|mlp|layer|fusion_layer)\.[\w.]+\.(?:(?P<side>lora_[ab])\.weight|magnitude)|output\.lora_[ab]\.weight"
        ),
        "torchtune's own names, with query and key rows in another order than transformers': convert the file by saving it with "
        "torchtune's FullModelHFCheckpointer, which writes PEFT's format",
    ),
    Format(
        "LitGPT",
        re.compile(r"(transformer\.h\.\d+\.[\w.]+|lm_head)\.(lora_[AB])"),
        "LitGPT's own names, with query, key and value in one matrix: convert the file by `litgpt merge_lora` and "
        "`litgpt convert_from_litgpt`, which give a merged model",
    ),
    Format(
        "Megatron",
        re.compile(
            r".*\.(adapter|adapter_layer\.\w+)\.linear_(in|out)\.weight|.*\.self_attention\.linear_(qkv|proj)\..*lora.*|.*\.mlp\.linear_fc[12]\..*lora.*"
        ),
        "Megatron's own names, with query, key and value in one matrix: convert the file by the export to Hugging Face of NeMo or "
        "Megatron-Bridge",
    ),
    Format(
        "diffusers before PEFT",
        re.compile(r".*\.(processor\..*_lora|lora_linear_layer|lora)\.(down|up)\.weight"),
        "convert it by load_lora_weights",
    ),
)
