"""mlx-lm: a YAML with `fine_tune_type` and `lora_parameters`, or the adapter_config.json that it writes beside its adapters.

Follows `linear_to_lora_layers` of mlx_lm/tuner/utils.py, `CONFIG_DEFAULTS` of mlx_lm/lora.py and `LoRALinear` of mlx_lm/tuner/lora.py,
read in 0.32.0 (d78bf58e, August 2026). Its scale is PEFT's scaling, its rank the same, so lora_alpha is scale times rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.recognised import Chosen, Recognised, Settings
from peft_inspect.load.trainers.search import as_targets, blocks, expert_parameters

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_DEFAULT_LAYERS, _DEFAULT_RANK, _DEFAULT_SCALE = 16, 8, 20.0
_SWITCH = {
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "down_proj": "down_proj",
}  # layers of all experts → transformers' weights


def _read(reader: Reader) -> Recognised:
    kind = reader.take("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise reader.refusal(f"with fine_tune_type: {kind}, which trains no LoRA")
    rank = reader.whole("lora_parameters.rank", _DEFAULT_RANK)
    fields = {
        "r": rank,
        "lora_alpha": reader.number("lora_parameters.scale", _DEFAULT_SCALE) * rank,
        "lora_dropout": reader.number("lora_parameters.dropout", 0.0),
        "use_dora": kind == "dora",
    }
    resumed = reader.text("resume_adapter_file")
    return Recognised(
        fields=fields,
        model=reader.text("model"),
        settings=Settings(bool(reader.take("grad_checkpoint", False)), {"use_reentrant": False}),
        notes=(f"warning: resume_adapter_file: {resumed} is MLX's own format; its values are not here",) if resumed else (),
        for_model=partial(_for_model, reader.names("lora_parameters.keys"), reader.whole("num_layers", _DEFAULT_LAYERS)),
    )


def _for_model(keys: list[str] | None, count: int, model: Any, _: Mapping[str, Any]) -> Chosen:
    import torch

    modules, where = dict(model.named_modules()), blocks(model)
    if where is None:
        return Chosen({"target_modules": keys or []}, ("warning: the model has no list of blocks, of which MLX adapts the last ones",))
    depth = len(modules[where])
    last_blocks = [f"{where}.{index}." for index in range(max(depth - max(count, 0), 0) if count > 0 else 0, depth)]
    adaptable = {path for path, module in modules.items() if isinstance(module, torch.nn.Linear | torch.nn.Embedding)}
    in_blocks = {path: path.removeprefix(block) for block in last_blocks for path in adaptable if path.startswith(block)}
    paths = [path for path in modules if path in in_blocks and (keys is None or in_blocks[path] in keys)]
    paths += [path for path in adaptable if keys is not None and (path in keys or path.removeprefix("model.") in keys)]
    experts = [path for path in expert_parameters(model) if any(path.startswith(block) for block in last_blocks) and _asked(path, keys)]
    chosen: dict[str, Any] = {"target_modules": as_targets(paths, model)}
    notes = [f"of {depth} blocks the last {len(last_blocks)} get adapters, as num_layers says"] if len(last_blocks) < depth else []
    if experts:
        chosen["target_parameters"] = sorted(experts if len(last_blocks) < depth else {".".join(path.split(".")[-3:]) for path in experts})
    return Chosen(chosen, tuple(notes))


def _asked(path: str, keys: list[str] | None) -> bool:
    """Whether the layers that one fused weight of the experts stands for are among the keys."""
    names = {name for name, fused in _SWITCH.items() if path.endswith(f".{fused}")}
    return bool(names) and (keys is None or any("switch_mlp" in key and key.rpartition(".")[2] in names for key in keys))


DIALECT = Dialect(
    trainer="MLX",
    version="0.32.0",
    follows="mlx_lm.tuner.utils.linear_to_lora_layers, mlx_lm.lora.CONFIG_DEFAULTS",
    own=frozenset({"fine_tune_type", "lora_parameters", "resume_adapter_file", "grad_checkpoint", "lora_layers"}),
    decides={
        "model": "the base model",
        "fine_tune_type": "LoRA or DoRA",
        "num_layers": f"how many blocks get adapters, counted from the last; {_DEFAULT_LAYERS} where it is left out",
        "lora_parameters.keys": "the targets, by their paths in a block; all layers of a block where it is left out",
        "lora_parameters.rank": f"r, {_DEFAULT_RANK} where it is left out",
        "lora_parameters.scale": f"lora_alpha, divided by the rank; {_DEFAULT_SCALE:g} where it is left out",
        "lora_parameters.dropout": "lora_dropout",
        "resume_adapter_file": "the values that the adapter begins with, which are not followed, with a warning",
        "grad_checkpoint": "activation checkpointing",
    },
    warned={},
    indifferent=frozenset({"adapter_path", "lr_schedule", "optimizer_config"}),
    read=_read,
)
