"""LLaMA-Factory: one YAML with `model_name_or_path`, `finetuning_type` and `lora_target`.

Follows `_setup_lora_tuning` of llamafactory/model/adapter.py, `find_all_linear_modules` and `find_expanded_modules` of
model/model_utils/misc.py, `patch_target_modules` of model/model_utils/visual.py, `prepare_model_for_training` of
model/model_utils/checkpointing.py and the arguments' defaults in hparams/, read in 0.9.6.dev0 (ff6d4d12e, August 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.llama_factory_parts import Parts, parts_of
from peft_inspect.load.trainers.recognised import Chosen, Recognised, Settings, at_revision, present
from peft_inspect.load.trainers.search import as_targets, last, linear_names
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_FIELDS = {"lora_dropout": "lora_dropout", "use_rslora": "use_rslora", "use_dora": "use_dora"}
_NEW_TOKENS = ("resize_vocab", "add_tokens", "add_special_tokens", "new_special_tokens_config")
_OUTPUTS = {"chatglm": ("output_layer",), "internlm2": ("output",)}
_DEFAULT_ITERATIONS = 16
_DEFAULT_LAYERS = 2


def _read(reader: Reader) -> Recognised:
    if (kind := reader.take("finetuning_type", "lora")) != "lora":
        raise reader.refusal(f"with finetuning_type: {kind}, which trains no LoRA")
    adapters = reader.names("adapter_name_or_path") or []
    if not reader.has("finetuning_type") and not reader.has("lora_target") and not reader.has("lora_rank"):
        raise reader.refusal(_not_training(reader, adapters))
    rank, targets = reader.whole("lora_rank", 8), reader.names("lora_target") or ["all"]
    fields = {
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": reader.take("lora_alpha") or 2 * rank,
        "target_modules": targets,
        "modules_to_save": reader.names("additional_target"),
        **reader.renamed(_FIELDS),
    }
    if reader.take("pissa_init"):
        iterations = reader.whole("pissa_iter", _DEFAULT_ITERATIONS)
        fields["init_lora_weights"] = "pissa" if iterations == -1 else f"pissa_niter_{iterations}"
    settings = Settings(
        gradient_checkpointing=not reader.take("disable_gradient_checkpointing", False),
        # Its own checkpoint function makes the input of every block with trainable weights require a gradient, reentrant or not.
        checkpointing_kwargs={"use_reentrant": False},
    )
    anew = reader.take("create_new_adapter", False)
    merged = adapters if anew else adapters[:-1]
    return Recognised(
        fields=present(fields),
        model=at_revision(reader.text("model_name_or_path"), reader.text("model_revision")),
        settings=settings,
        notes=tuple(f"warning: {name} is merged into the base before the training, and its values are not here" for name in merged),
        for_model=partial(_for_model, _Choices(reader)),
        resumed=adapters[-1] if adapters and not anew else None,
    )


def _not_training(reader: Reader, adapters: list[str]) -> str:
    what = "for merging" if reader.has("export_dir") else "for inference"
    which = f": to inspect the adapter, name its folder as MODEL: {adapters[-1]}" if adapters else ""
    return f"{what}, which trains no LoRA{which}"


class _Choices:
    """The fields that decide the targets once the model is there."""

    def __init__(self, reader: Reader) -> None:
        self.freeze_vision = reader.take("freeze_vision_tower", True)
        self.freeze_projector = reader.take("freeze_multi_modal_projector", True)
        self.freeze_language = reader.take("freeze_language_model", False)
        self.expanded = reader.whole("freeze_trainable_layers", _DEFAULT_LAYERS) if reader.take("use_llama_pro") else None
        self.resized = any(reader.take(name) for name in _NEW_TOKENS) and not reader.has("additional_target")

    def forbidden(self, parts: Parts) -> tuple[str, ...]:
        """Texts in the paths of modules that get no adapter."""
        frozen = (
            *(parts.vision if self.freeze_vision else ()),
            *(parts.projector if self.freeze_projector else ()),
            *(parts.language if self.freeze_language else ()),
        )
        return (*frozen, *parts.conflicts)


def _for_model(choices: _Choices, model: Any, fields: Mapping[str, Any]) -> Chosen:
    parts, kind = parts_of(model), getattr(model.config, "model_type", "")
    targets = list(fields["target_modules"])
    if targets == ["all"]:
        frozen = (*parts.projector, *(parts.vision if choices.freeze_vision else ())) if parts else ()
        targets = linear_names(model, without=("lm_head", *_OUTPUTS.get(kind, ()), *frozen))
    chosen: dict[str, Any] = {"target_modules": targets}
    reached = None
    if choices.expanded is not None:
        reached = _expanded(model, targets, choices.expanded)
    if parts:
        paths = reached if reached is not None else _containing(model, targets)
        reached = [path for path in paths if not any(text in path for text in choices.forbidden(parts))]
    if reached is not None:
        chosen["target_modules"] = as_targets(reached, model)
    if choices.resized:
        chosen["modules_to_save"] = _embeddings(model)
    return Chosen(chosen)


def _containing(model: Any, targets: list[str]) -> list[str]:
    """Modules with one of the names anywhere in their path."""
    return [path for path, _ in model.named_modules() if any(name in path for name in targets)]


def _expanded(model: Any, targets: list[str], count: int) -> list[str]:
    """`use_llama_pro`: only the blocks that were added, at equal distances, the last of each group."""
    layers = getattr(model.config, "num_hidden_layers", None)
    if not layers or layers % count:
        raise InspectionError(f"use_llama_pro: LLaMA-Factory refuses a model of {layers} layers with freeze_trainable_layers={count}")
    stride = layers // count
    added = [f".{index}." for index in range(stride - 1, layers + stride - 1, stride)]
    return [path for path in _containing(model, targets) if any(index in path for index in added)]


def _embeddings(model: Any) -> list[str]:
    """The names of the embedding and of the output layer, which are trained in full where the vocabulary grows."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    return sorted({last(path) for path, module in model.named_modules() if any(module is end for end in ends)})


DIALECT = Dialect(
    trainer="LLaMA-Factory",
    version="0.9.6.dev0",
    follows="llamafactory.model.adapter._setup_lora_tuning, llamafactory.model.model_utils",
    own=frozenset(
        {
            *("finetuning_type", "lora_target", "additional_target", "use_llama_pro", "pissa_init", "create_new_adapter"),
            *("freeze_vision_tower", "freeze_multi_modal_projector", "use_reentrant_gc", "disable_gradient_checkpointing"),
            *("cutoff_len", "export_dir", "infer_backend", "template"),
        }
    ),
    told=lambda data: "peft_config" not in data and bool({"model_name_or_path", "finetuning_type", "lora_target"} & data.keys()),
    decides={
        "model_name_or_path": "the base model",
        "model_revision": "its revision",
        "finetuning_type": "whether there is a LoRA",
        "lora_target": "the targets; `all` is the names of the linear layers outside the output layer and the frozen parts",
        "additional_target": "modules_to_save",
        "lora_rank": "r",
        "lora_alpha": "lora_alpha, twice the rank where it is left out",
        "pissa_init": "init_lora_weights",
        "pissa_iter": "init_lora_weights",
        "adapter_name_or_path": "the trained adapter that is resumed, the last of several; the others are merged into the base",
        "create_new_adapter": "all adapters are merged, and a new one begins",
        "freeze_vision_tower": "no adapters in the vision tower, unless it is false",
        "freeze_multi_modal_projector": "no adapters in the projector, unless it is false",
        "freeze_language_model": "no adapters in the language model",
        "use_llama_pro": "adapters in the added blocks only",
        "freeze_trainable_layers": "how many blocks were added",
        **dict.fromkeys(_NEW_TOKENS, "the embedding and the output layer join modules_to_save, unless additional_target is given"),
        "disable_gradient_checkpointing": "activation checkpointing",
        "use_reentrant_gc": "its kind, which makes no difference: every checkpointed block gets an input that requires a gradient",
        "export_dir": "the file is for merging",
        **dict(_FIELDS.items()),
    },
    warned={
        "use_unsloth": "unsloth wraps the model, with targets and checkpointing of its own",
        "use_kt": "KTransformers builds the experts and their adapters itself",
        "mixture_of_depths": "the model is converted to one that leaves out tokens",
        "shift_attn": "the attention is exchanged for another one",
        "use_unsloth_gc": "another activation checkpointing, that of unsloth, is used",
        "adapter_folder": "the adapter is in a sub-folder of the one named",
        "train_from_scratch": "the base model begins at random weights",
        "upcast_layernorm": "layer norms are kept in float32",
        "upcast_lmhead_output": "the output of the head is made float32",
    },
    indifferent=frozenset({"asft_alpha", "eaft_alpha", "pissa_convert", "init_special_tokens", "offload_folder", "use_v1_kernels"})
    | frozenset({"enable_liger_kernel", "freeze_trainable_modules", "freeze_extra_modules", "adam_beta1", "template"}),
    read=_read,
)
