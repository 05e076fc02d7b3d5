"""Unsloth: the YAML of its studio and command line, with a `lora` section of `lora_r` and `finetune_…_layers`.

Follows `Config.model_kwargs` of unsloth_cli/config.py, the branches for text and vision of `prepare_model_for_training` in
studio/backend/core/training/trainer.py, `FastBaseModel.get_peft_model` of unsloth/models/vision.py, `get_moe_target_parameters` of
unsloth/models/_utils.py (2026.8.19, 015bdef0d) and `get_peft_regex` of unsloth_zoo/peft_utils.py (ce232d6c), read in August 2026.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.recognised import Chosen, Recognised, Settings
from peft_inspect.load.trainers.search import distinct, expert_parameters, last

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_FIELDS = {"lora.use_rslora": "use_rslora", "lora.use_dora": "use_dora", "lora.modules_to_save": "modules_to_save"}
_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_DEFAULTS = {"lora.lora_r": ("r", 64), "lora.lora_alpha": ("lora_alpha", 16), "lora.lora_dropout": ("lora_dropout", 0.0)}
_SWITCHES = ("vision_layers", "language_layers", "attention_modules", "mlp_modules")
_WORDS = {  # a switch → what the path of such a module contains
    "vision_layers": ("vision", "image", "visual", "patch"),
    "language_layers": ("language", "text"),
    "attention_modules": ("self_attn", "attention", "attn", "mixer"),
    "mlp_modules": ("mlp", "feed_forward", "ffn", "dense", "mixer"),
}
_EXPERTS = {"gate_up_proj": {"gate_proj", "up_proj", "gate_up_proj"}, "down_proj": {"down_proj"}}  # a fused weight → names that ask for it
_NEVER = r"(?!x)x"


def _read(reader: Reader) -> Recognised:
    if (kind := reader.take("training.training_type", "lora")) != "lora":
        raise reader.refusal(f"with training_type: {kind}, which trains no LoRA")
    names = reader.names("lora.target_modules") or []
    fields = {
        "task_type": "CAUSAL_LM",
        **{field: reader.number(name, default) for name, (field, default) in _DEFAULTS.items()},
        **reader.renamed(_FIELDS),
    }
    if reader.take("lora.use_loftq"):
        fields |= {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4, "loftq_iter": 1}}
    checkpointing = str(reader.take("training.gradient_checkpointing", "unsloth")).lower() not in ("false", "0", "no", "none", "off")
    switches = {name: bool(reader.take(f"lora.finetune_{name}", True)) for name in _SWITCHES}
    return Recognised(
        fields=fields,
        model=reader.text("model"),
        settings=Settings(checkpointing, {"use_reentrant": True} if checkpointing else {}, input_gradients=checkpointing),
        for_model=partial(_for_model, names, switches, bool(reader.take("lora.vision_all_linear"))),
    )


def _for_model(names: list[str], switches: Mapping[str, bool], vision_all: bool, model: Any, _: Mapping[str, Any]) -> Chosen:
    several = _has_vision(model)
    if several and (vision_all or "all-linear" in names or names in ([], _SEVEN)):
        every = vision_all or names == ["all-linear"]
        target: Any = _pattern(model, dict.fromkeys(_SWITCHES, True) if every else switches, None)
        wanted = {"gate_proj", "up_proj", "down_proj"} if every or switches["mlp_modules"] else set()
    else:
        listed = [name for name in names if name != "all-linear"] or _SEVEN
        wanted = set(listed) if not several or (switches["mlp_modules"] and switches["language_layers"]) else set()
        scoped = several and not all(switches.values())
        target = _pattern(model, switches, listed) if scoped else listed
        if not several and names == ["all-linear"]:
            target, wanted = _pattern(model, {**dict.fromkeys(_SWITCHES, True)}, None), {"gate_proj", "up_proj", "down_proj"}
    experts = [path for path in expert_parameters(model) if wanted & _EXPERTS.get(last(path), set())]
    parameters = distinct(".".join(path.split(".")[-3:]) for path in experts)
    return Chosen({"target_modules": target, **({"target_parameters": parameters} if parameters else {})}, _gemma(model))


def _has_vision(model: Any) -> bool:
    return hasattr(model.config, "vision_config")


def _gemma(model: Any) -> tuple[str, ...]:
    kind = getattr(model.config, "model_type", "")
    beyond = _has_vision(model) and kind.startswith(("gemma4", "gemma3n"))
    return ("warning: the branches that unsloth has for the flat projections of Gemma 3n and 4 are not followed",) if beyond else ()


def _pattern(model: Any, switches: Mapping[str, bool], names: list[str] | None) -> str:
    """The regular expression that unsloth writes: a part of the model, a sort of module, and the name of a linear layer, in this order."""
    import torch

    linear = [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    counts = Counter(map(last, linear))
    leaves = names if names is not None else [name for name, count in counts.items() if count != 1]  # a head is there once
    leaf = "(?:" + "|".join(map(re.escape, leaves)) + ")"
    parts = "|".join(word for name in ("vision_layers", "language_layers") if switches[name] for word in _WORDS[name])
    sorts = "|".join(word for name in ("attention_modules", "mlp_modules") if switches[name] for word in _WORDS[name])
    written = rf".*?(?:{parts}).*?(?:{sorts}).*?{leaf}" if parts else _NEVER
    if parts and switches["language_layers"]:
        written = rf"(?:{written})|(?:\bmodel\.layers\.[\d]{{1,}}\.(?:{sorts})\.(?:{leaf}))"
    if parts and not any(re.search(written, path) for path in linear):
        written = rf".*?(?:{sorts}).*?{leaf}"
    return written


DIALECT = Dialect(
    trainer="unsloth",
    version="2026.8.19",
    follows="unsloth_cli.config.Config, unsloth.models.vision.FastBaseModel.get_peft_model, unsloth_zoo.peft_utils.get_peft_regex",
    own=frozenset({"lora.lora_r", "lora.vision_all_linear", "lora.use_loftq", "training.training_type"})
    | frozenset(f"lora.finetune_{name}" for name in _SWITCHES),
    decides={
        "model": "the base model",
        "training.training_type": "whether there is a LoRA",
        "training.gradient_checkpointing": "activation checkpointing, unsloth's own (reentrant) where it is left out",
        "lora.target_modules": "the targets of text models; in a model with vision they are looked for by the finetune_ switches",
        "lora.vision_all_linear": "all parts of a model with vision",
        "lora.use_loftq": "init_lora_weights",
        **{f"lora.finetune_{name}": f"adapters in {name.replace('_', ' ')}, unless it is false" for name in _SWITCHES},
        **{name: f"{field}, {default} where it is left out" for name, (field, default) in _DEFAULTS.items()},
        **dict(_FIELDS.items()),
    },
    warned={"lora.finetune_audio_layers": "adapters in the audio tower"},
    read=_read,
)
