"""NeMo Automodel: a `peft` section with `_target_: …PeftConfig`, `dim` and `alpha`.

Follows `apply_lora_to_linear_modules` and `PeftConfig` of nemo_automodel/components/_peft/lora.py and `ModuleMatcher` of
module_matcher.py there, read in 0.5.0 (36044ad3d, August 2026).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from peft_inspect.load.lora.pattern_time import Pattern, require_quick
from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.recognised import Chosen, Recognised, Settings
from peft_inspect.load.trainers.search import as_targets, distinct, expert_parameters

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_FIELDS = {"peft.use_dora": "use_dora"}
_DEFAULTS = {"peft.dim": ("r", 8), "peft.alpha": ("lora_alpha", 32), "peft.dropout": ("lora_dropout", 0.0)}
_PARTS = {  # a part → whether it is frozen where nothing is said, and the texts in the paths of what is
    "vision_tower": (True, ("vision", "visual", "image_encoder")),
    "audio_tower": (False, ("audio", "speech", "sound")),
    "language_model": (False, ("language", "text", "llm")),
    "video_embedder": (False, (r"patch_generator\.video_embedder",)),
}
_MODEL = "model.pretrained_model_name_or_path"
_ACTIVE = ("num_experts_per_tok", "top_k_experts", "moe_topk", "num_experts_per_token")


def _read(reader: Reader) -> Recognised:
    if not reader.has("peft"):
        raise reader.refusal("without a peft section, which trains no LoRA")
    target = str(reader.take("peft._target_", ""))
    if target and not target.rpartition(".")[2].startswith(("PeftConfig", "LoRA", "Lora")):
        raise reader.refusal(f"with peft._target_: {target}, which is no LoRA")
    matcher = _Matcher(
        reader.names("peft.target_modules") or [],
        reader.names("peft.exclude_modules") or [],
        every=bool(reader.take("peft.match_all_linear")),
    )
    if matcher.targets and matcher.excluded:
        raise reader.refusal("with both target_modules and exclude_modules, which it refuses")
    if matcher.every and (matcher.targets or matcher.excluded):
        raise reader.refusal("with match_all_linear beside target_modules or exclude_modules, which it refuses")
    fields = {field: reader.number(name, default) for name, (field, default) in _DEFAULTS.items()}
    post = reader.take("peft.dropout_position", "post") == "post" and fields["lora_dropout"]
    return Recognised(
        fields={**fields, **reader.renamed(_FIELDS)},
        model=reader.text(_MODEL),
        settings=Settings(
            bool(reader.take("distributed.activation_checkpointing")), {"use_reentrant": False}, trainable=tuple(_frozen(reader))
        ),
        notes=("peft.dropout_position: its dropout comes after the adapter, PEFT's before it",) if post else (),
        for_model=partial(_for_model, matcher, bool(reader.take("peft.moe_rank_scaling"))),
    )


def _frozen(reader: Reader) -> Iterator[tuple[str, bool]]:
    """Parts that are frozen after the wrapping, adapters in them too; the vision tower is, wherever there is a freeze_config."""
    if not reader.has("freeze_config"):
        return
    for part, (default, words) in _PARTS.items():
        if reader.take(f"freeze_config.freeze_{part}", default):
            yield rf"({'|'.join(words)})", False


class _Matcher:
    """Which modules are adapted: by name or wildcard, or all linear layers but those excluded."""

    def __init__(self, targets: list[str], excluded: list[str], *, every: bool) -> None:
        self.targets, self.excluded, self.every = targets, excluded, every
        if not every and not targets and not excluded:
            self.targets = ["*_proj"]

    def matches(self, path: str, *, linear: bool) -> bool:
        """Whether a module is adapted; only linear layers and experts are asked for."""
        if self.every and linear:
            return True
        if self.targets:
            return any(path == name or _wildcard(name).match(path) for name in self.targets)
        return linear and path not in self.excluded and not any(_wildcard(name).match(path) for name in self.excluded)


def _wildcard(text: str) -> re.Pattern[str]:
    """A star stands for anything; a dot stands for any character, and one before a star belongs to the star."""
    pattern = re.sub(r"(?<!\.)\*", r".*", text)
    return re.compile("^" + re.sub(r"\.\*", "(.*)", pattern) + "$")


def _for_model(matcher: _Matcher, scaled: bool, model: Any, fields: Mapping[str, Any]) -> Chosen:
    import torch

    every = [path for path, _ in model.named_modules()]
    require_quick((Pattern("peft.target_modules", name, _wildcard(name).pattern) for name in matcher.targets + matcher.excluded), every)
    paths = [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear) and matcher.matches(path, linear=True)]
    experts = [path for path in expert_parameters(model) if matcher.matches(path.rpartition(".")[0], linear=False)]
    chosen: dict[str, Any] = {"target_modules": as_targets(paths, model)}
    notes = []
    if experts:
        chosen["target_parameters"] = distinct(".".join(path.split(".")[-3:]) for path in experts)
        notes.append("NeMo Automodel's own classes may hold the experts in another form; shown is transformers'")
    active = next((count for name in _ACTIVE if (count := getattr(model.config.get_text_config(), name, None))), None)
    if experts and scaled and active:
        names = {path.rpartition(".")[2] for path in experts}
        chosen["rank_pattern"] = dict.fromkeys(sorted(f"experts.{name}" for name in names), max(int(fields["r"]) // active, 1))
    return Chosen(chosen, tuple(notes))


DIALECT = Dialect(
    trainer="NeMo Automodel",
    version="0.5.0",
    follows="nemo_automodel.components._peft.lora, nemo_automodel.components._peft.module_matcher",
    own=frozenset(
        {"peft.dim", "step_scheduler", "peft.match_all_linear", "peft.moe_rank_scaling", "peft.dropout_position", "peft.use_triton"}
    ),
    decides={
        _MODEL: "the base model",
        "peft._target_": "whether there is a LoRA",
        "peft.target_modules": "the targets, with wildcards over whole paths; `*_proj` where nothing is said",
        "peft.exclude_modules": "all linear layers but these are targets, the head among them",
        "peft.match_all_linear": "all linear layers are targets, the head among them",
        "peft.moe_rank_scaling": "the experts' rank, divided by how many of them a token gets",
        "peft.dropout_position": "dropout before or after the adapter; only before can be shown",
        "distributed.activation_checkpointing": "activation checkpointing",
        **{
            f"freeze_config.freeze_{part}": f"freezes what is called {' or '.join(words)}, adapters too"
            for part, (_, words) in _PARTS.items()
        },
        **{name: f"{field}, {default} where it is left out" for name, (field, default) in _DEFAULTS.items()},
        **dict(_FIELDS.items()),
    },
    warned={
        "peft.lora_A_init": "A begins at other random values",
    },
    indifferent=frozenset(
        {
            "peft.use_triton",
            "peft.use_memory_efficient_lora",
            "fp8",
            "flow_matching",
            "freeze_config.freeze_embeddings",
            "model.backend.enable_hf_state_dict_adapter",
        }
    ),
    read=_read,
)
