"""ms-swift: one YAML with `model`, `tuner_type` (`train_type` in older versions) and fields without a prefix of its own.

Follows `get_target_modules`, `get_modules_to_save`, `prepare_adapter` and `TunerMixin.prepare_model` of swift/pipelines/train/tuner.py,
`find_all_linears` and `get_multimodal_target_regex` of swift/utils/transformers_utils.py and the defaults of
swift/arguments/tuner_args.py, read in 4.6.0.dev0 (3602360a5, August 2026).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.ms_swift_parts import Parts, parts_of
from peft_inspect.load.trainers.recognised import Chosen, Recognised, Settings, at_revision, present
from peft_inspect.load.trainers.search import distinct, last

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_DEFAULTS = {"lora_rank": ("r", 8), "lora_alpha": ("lora_alpha", 32), "lora_dropout": ("lora_dropout", 0.05)}
_FIELDS = {"lora_bias": "bias", "use_rslora": "use_rslora", "use_dora": "use_dora"}
_TASKS = {"embedding": None, "reranker": "SEQ_CLS", "generative_reranker": "CAUSAL_LM"}  # swift's task → PEFT's
_NO_LINEAR = ("glulinear", "gemma4clippablelinear")
_NO_TARGETS = ("lm_head", "score", "v_head", "classifier", "lora_A", "lora_B", "base_layer")
_MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_MAMBA_KERNELS = ("out_proj", "conv1d")  # names dropped on these types, where they stand in a list


def _read(reader: Reader) -> Recognised:
    kind = reader.take("tuner_type", reader.take("train_type", reader.take("sft_type", "lora")))
    if kind != "lora":
        raise reader.refusal(f"with tuner_type: {kind}, which trains no LoRA of PEFT's")
    if reader.take("use_swift_lora") or reader.take("tuner_backend", "peft") != "peft":
        raise reader.refusal("that leaves the wrapping to another library than PEFT: name train.py:build_model to inspect what it builds")
    task = str(reader.take("task_type", "causal_lm")).lower()
    adapters = reader.names("adapters") or ([reader.take("resume_from_checkpoint")] if reader.take("resume_from_checkpoint") else [])
    start = reader.take("init_weights", True)
    fields = {
        **{field: reader.number(name, default) for name, (field, default) in _DEFAULTS.items()},
        **reader.renamed(_FIELDS),
        "task_type": _TASKS[task] if task in _TASKS else task.upper(),
        "target_parameters": reader.names("target_parameters"),
        "init_lora_weights": start if not isinstance(start, str) or start.lower() not in ("true", "false") else start.lower() == "true",
    }
    settings = Settings(
        gradient_checkpointing=bool(reader.take("gradient_checkpointing", True)),
        checkpointing_kwargs=reader.mapping("gradient_checkpointing_kwargs") or {"use_reentrant": False},
        input_gradients=True,
    )
    return Recognised(
        fields=present(fields),
        model=at_revision(reader.text("model"), reader.text("model_revision")),
        settings=settings,
        config_fields=reader.renamed({"num_labels": "num_labels"}),
        for_model=partial(_for_model, _Choices(reader, task)),
        resumed=adapters[0] if adapters else None,
    )


class _Choices:
    """The fields that decide the targets once the model is there."""

    def __init__(self, reader: Reader, task: str) -> None:
        self.pattern = reader.text("target_regex")
        self.names = reader.names("target_modules") or ["all-linear"]
        self.saved = reader.names("modules_to_save") or []
        self.freeze_language = bool(reader.take("freeze_llm", False))
        self.freeze_vision = bool(reader.take("freeze_vit", True))
        self.freeze_aligner = bool(reader.take("freeze_aligner", True))
        self.value_head = task == "seq_cls"

    def reached(self, parts: Parts) -> tuple[str, ...]:
        """The parts that get adapters."""
        return (
            *(() if self.freeze_language else parts.language),
            *(() if self.freeze_vision else parts.vision),
            *(() if self.freeze_aligner else parts.aligner),
        )


def _for_model(choices: _Choices, model: Any, _: Mapping[str, Any]) -> Chosen:
    saved = _saved(choices, model)
    if choices.pattern:
        return Chosen({"target_modules": choices.pattern, **saved})
    names, parts = list(choices.names), parts_of(model)
    if "all-linear" in names and parts is not None:
        pattern = _pattern(choices, parts, model, embeddings="all-embedding" in names)
        return Chosen({"target_modules": pattern, **saved}, parts.notes)
    if "all-linear" in names:
        names = [name for name in names if name != "all-linear"] + _names(model, model)
    if "all-embedding" in names:
        names = [name for name in names if name != "all-embedding"] + _embeddings(model)
    if getattr(model.config, "model_type", "") in _MAMBA:
        names = [name for name in names if name not in _MAMBA_KERNELS]
    return Chosen({"target_modules": distinct(names), **saved})


def _names(model: Any, part: Any, *, embeddings: bool = False) -> list[str]:
    """Names of the linear layers in a part; longer by the name above where something that is none is called alike."""
    others = {_template(path) for path, module in model.named_modules() if not _is_target(path, module, embeddings=embeddings)}
    names = []
    for path, module in part.named_modules():
        if not _is_target(path, module, embeddings=embeddings):
            continue
        above = path.split(".")
        name = above.pop()
        while above and any(other.endswith(_template(name)) for other in others):
            name = f"{above.pop()}.{name}"
        names.append(name)
    return distinct(names)


def _template(path: str) -> str:
    return re.sub(r"\d+\.", "{}.", path)


def _is_target(path: str, module: Any, *, embeddings: bool) -> bool:
    import torch

    kind = type(module).__name__.lower()
    linear = "linear" in kind and not any(name in kind for name in _NO_LINEAR)
    return (linear or (embeddings and isinstance(module, torch.nn.Embedding))) and not any(name in path for name in _NO_TARGETS)


def _pattern(choices: _Choices, parts: Parts, model: Any, *, embeddings: bool) -> str:
    """The regular expression that swift writes for a model of several parts."""
    import torch

    found = []
    for part in choices.reached(parts):
        module = dict(model.named_modules()).get(part)
        if module is None or (isinstance(module, torch.nn.Linear) and part.endswith("lm_head")):
            continue
        inside = [aligner for aligner in parts.aligner if aligner.startswith(f"{part}.")]
        kept_out = inside if not (choices.freeze_vision and choices.freeze_language) else []
        names = [name for name in _names(module, module, embeddings=embeddings) if name]
        if names:
            rejected = f"(?!({'|'.join(kept_out)}))" if kept_out else ""
            found.append(rf"{rejected}{re.escape(part)}(?=\.).*\.({'|'.join(names)})")
    return rf"^({'|'.join(found)})$"


def _embeddings(model: Any) -> list[str]:
    import torch

    return distinct(last(path) for path, module in model.named_modules() if isinstance(module, torch.nn.Embedding))


def _norms(model: Any) -> list[str]:
    import torch

    found = (
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm) or "rmsnorm" in type(module).__name__.lower()
    )
    return distinct(map(last, found))


def _saved(choices: _Choices, model: Any) -> dict[str, Any]:
    names = [name for name in choices.saved if name not in ("all-embedding", "all-norm")]
    names += _embeddings(model) if "all-embedding" in choices.saved else []
    names += _norms(model) if "all-norm" in choices.saved else []
    present = {last(path) for path, _ in model.named_modules()}
    names += ["v_head"] if choices.value_head and "v_head" in present else []
    return {"modules_to_save": names} if names else {}


DIALECT = Dialect(
    trainer="ms-swift",
    version="4.6.0.dev0",
    follows="swift.pipelines.train.tuner, swift.utils.transformers_utils, swift.arguments.tuner_args",
    own=frozenset(
        {
            *("tuner_type", "train_type", "sft_type", "freeze_vit", "freeze_aligner", "freeze_llm", "target_regex", "tuner_backend"),
            *("split_dataset_ratio", "lorap_lr_ratio", "model_author", "rlhf_type"),
        }
    ),
    told=lambda data: "model" in data or bool({"tuner_type", "train_type", "sft_type"} & data.keys()),
    decides={
        "model": "the base model",
        "model_revision": "its revision",
        "tuner_type": "whether there is a LoRA",
        "train_type": "whether there is a LoRA",
        "sft_type": "whether there is a LoRA",
        "tuner_backend": "who wraps; another library than PEFT is refused",
        "use_swift_lora": "who wraps; another library than PEFT is refused",
        "task_type": "task_type",
        "num_labels": "the width of a classifier",
        "target_modules": "the targets; all-linear is the names of the linear layers, of several parts those of the language model",
        "target_regex": "target_modules, before the names",
        "target_parameters": "target_parameters",
        "modules_to_save": "modules_to_save; all-embedding and all-norm are the names of such modules",
        "freeze_llm": "no adapters in the language model of a multimodal one",
        "freeze_vit": "no adapters in the towers beside it, unless it is false",
        "freeze_aligner": "no adapters in the projectors, unless it is false",
        "init_weights": "init_lora_weights",
        "adapters": "the trained adapter that is resumed; its own config wins",
        "resume_from_checkpoint": "the checkpoint whose adapter is resumed",
        "gradient_checkpointing": "activation checkpointing, on where it is left out",
        "gradient_checkpointing_kwargs": "its kind",
        **{name: f"{field}, {default} where it is left out" for name, (field, default) in _DEFAULTS.items()},
        **dict(_FIELDS.items()),
    },
    warned={
        "new_special_tokens": "new tokens make the vocabulary larger",
        "lora_dtype": "decides whether the adapter is kept in float32",
        "vit_gradient_checkpointing": "activation checkpointing of the vision tower is switched by itself",
        "recompute_granularity": "Megatron's activation checkpointing, not that of the layers shown",
        "tensor_model_parallel_size": "Megatron builds the model, with modules of other names",
        "expert_model_parallel_size": "Megatron builds the model, with modules of other names",
    },
    indifferent=frozenset(
        {"merge_lora", "offload_model", "offload_optimizer", "rpo_alpha", "sft_alpha", "reward_adapters", "recompute_modules"}
    )
    | frozenset(
        {
            "use_liger_kernel",
            "teacher_adapters",
            "dataset",
            "recompute_method",
            "recompute_num_layers",
            "offload_teacher_model",
            "freeze_parameters",
            "freeze_parameters_ratio",
            "trainable_parameters",
        }
    ),
    read=_read,
    flat=("train",),
)
