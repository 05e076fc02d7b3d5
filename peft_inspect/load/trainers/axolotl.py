"""Axolotl: one YAML with `base_model`, `adapter` and fields that start with `lora_` or `peft_`.

Follows `load_lora`, `_build_peft_lora_config`, `_build_lora_config_kwargs` and `find_all_linear_names` of axolotl/loaders/adapter.py,
`load_adapter` there for the inputs' gradients, `freeze_layers_except` and `freeze_mm_modules` of axolotl/utils/freeze.py as called in
axolotl/train.py, and `_configure_gradient_checkpointing` of axolotl/core/builders/base.py, read in 0.18.0 (067b021, July 2026).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peft_inspect.load.lora.lora_values import not_a_pattern
from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.recognised import Chosen, Recognised, Settings, at_revision, present
from peft_inspect.load.trainers.search import distinct, linear_names
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_FIELDS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_fan_in_fan_out": "fan_in_fan_out",
    "lora_modules_to_save": "modules_to_save",
    "lora_exclude_modules": "exclude_modules",
    "lora_rank_pattern": "rank_pattern",
    "lora_alpha_pattern": "alpha_pattern",
    "peft_layers_to_transform": "layers_to_transform",
    "peft_layers_pattern": "layers_pattern",
    "peft_use_dora": "use_dora",
    "peft_use_rslora": "use_rslora",
    "peft_init_lora_weights": "init_lora_weights",
    "peft_ensure_weight_tying": "ensure_weight_tying",
    "peft_layer_replication": "layer_replication",
    "peft_trainable_token_indices": "trainable_token_indices",
}
_TASKS = {"SequenceClassification": "SEQ_CLS", "TokenClassification": "TOKEN_CLS"}  # by what the model's class is called
_HEADS = {"gpt_neox": "embed_out"}  # the output layer, which is no target, where it is not called lm_head
_HARMLESS = tuple(f"axolotl.integrations.{name}." for name in ("liger", "cut_cross_entropy", "kernels"))
_MULTIMODAL = "vision_tower|vision_model|vision_encoder|embed_vision|multi_modal_projector|visual|audio_tower|audio_model|embed_audio"


def _read(reader: Reader) -> Recognised:
    if (adapter := reader.take("adapter")) not in ("lora", "qlora"):
        raise reader.refusal(f"with adapter: {adapter or 'none'}, which trains no LoRA")
    model_class = reader.text("type_of_model") or reader.text("model_type") or ""
    task = next((task for name, task in _TASKS.items() if name in model_class), "CAUSAL_LM")
    asked = reader.take("lora_target_modules", [])
    fields = {
        **reader.renamed(_FIELDS),
        **_initialisation(reader),
        "task_type": task,
        "target_modules": asked if isinstance(asked, str) else reader.names("lora_target_modules") or [],
        "target_parameters": reader.names("lora_target_parameters"),
    }
    dropout = reader.number("lora_dropout", 0.0) if not fields["target_parameters"] else 0.0
    settings = Settings(
        gradient_checkpointing=bool(reader.take("gradient_checkpointing", False)),
        checkpointing_kwargs=reader.mapping("gradient_checkpointing_kwargs") or {"use_reentrant": False},
        input_gradients=True,
        trainable=_trainable(reader),
        linear_dropout=dropout,
    )
    overrides = reader.mapping("overrides_of_model_config") or reader.mapping("model_config")
    return Recognised(
        fields=present(fields),
        model=at_revision(reader.text("base_model"), reader.text("revision_of_model") or reader.text("model_revision")),
        settings=settings,
        config_fields={**reader.renamed({"num_labels": "num_labels"}), **overrides},
        for_model=_with_linear_layers if reader.take("lora_target_linear") else None,
        resumed=reader.text("lora_model_dir"),
        notes=_plugins(reader),
    )


def _plugins(reader: Reader) -> tuple[str, ...]:
    others = [name for name in reader.names("plugins") or () if not name.startswith(_HARMLESS)]
    return tuple(f"warning: the plugin {name} is not followed: it may add to the LoRA config or wrap the model itself" for name in others)


def _with_linear_layers(model: Any, fields: Mapping[str, Any]) -> Chosen:
    """`lora_target_linear`: the names of all linear layers but the output layer, together with what is listed beside it."""
    head = _HEADS.get(getattr(model.config, "model_type", ""), "lm_head")
    found = [name for name in linear_names(model) if name != head]
    listed = fields.get("target_modules") or []
    return Chosen({"target_modules": distinct([*([listed] if isinstance(listed, str) else listed), *found])})


def _initialisation(reader: Reader) -> dict[str, Any]:
    bits = reader.take("peft.loftq_config.loftq_bits")
    return {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": bits}} if bits and not reader.has("peft_init_lora_weights") else {}


def _trainable(reader: Reader) -> tuple[tuple[str, bool], ...]:
    """`unfrozen_parameters` freezes all others, the adapter among them; `freeze_mm_modules` comes after it."""
    trained = _unfrozen(reader)
    steps = ((rf"^(?!{trained})", False), (f"^{trained}", True)) if trained else ()
    frozen = ((rf"(^|\.)({_MULTIMODAL})(\.|$)", False),) if reader.take("freeze_mm_modules") else ()
    return (*steps, *frozen)


def _unfrozen(reader: Reader) -> str:
    """One regular expression for the start of the parameters that `unfrozen_parameters` trains; empty where it names none.

    Axolotl matches the names of the wrapped model, takes every dot but that of `.+` literally, and may restrict a pattern to
    rows of the tensor: `[:32000]`.
    """
    bare = (re.sub(r"\[\d*(:\d*)?\]$", "", pattern) for pattern in reader.names("unfrozen_parameters") or ())
    literal = [re.sub(r"\.(?!\+)", r"\\.", pattern) for pattern in bare]
    for pattern in literal:
        if why := not_a_pattern(pattern):
            raise InspectionError(f"{reader.where}: unfrozen_parameters holds no regular expression: {why} in {pattern!r}")
    return f"(?:{'|'.join(literal)})" if literal else ""


DIALECT = Dialect(
    trainer="axolotl",
    version="0.18.0",
    follows="axolotl.loaders.adapter.load_lora, axolotl.utils.freeze, axolotl.core.builders.base",
    own=frozenset(
        {
            *("lora_target_linear", "sequence_len", "lora_model_dir", "unfrozen_parameters", "freeze_mm_modules", "val_set_size"),
            *(
                "overrides_of_model_config",
                "revision_of_model",
                "type_of_model",
                "lora_rank_pattern",
                "lora_alpha_pattern",
                "base_model_config",
            ),
            *("lora_exclude_modules", "lora_fan_in_fan_out", "peft_use_dora", "peft_use_rslora", "peft_layers_to_transform"),
            *("peft_init_lora_weights", "peft_layer_replication", "peft_trainable_token_indices", "peft_ensure_weight_tying"),
        }
    ),
    together=("adapter", "base_model"),
    told=lambda data: bool({"base_model", "adapter"} & data.keys()),
    decides={
        "base_model": "the base model",
        "revision_of_model": "its revision",
        "model_revision": "its revision",
        "type_of_model": "the class, and with it the task type",
        "model_type": "the class, and with it the task type",
        "num_labels": "the width of a classifier",
        "overrides_of_model_config": "fields of the model's config",
        "model_config": "fields of the model's config",
        "adapter": "whether there is a LoRA",
        "lora_model_dir": "the trained adapter that is resumed; its own config wins over all fields here",
        "lora_target_linear": "adds the names of all linear layers but the output layer to the targets",
        "lora_target_modules": "target_modules, beside those of lora_target_linear",
        "lora_target_parameters": "target_parameters",
        "peft.loftq_config": "init_lora_weights",
        "unfrozen_parameters": "what trains; all else is frozen, the adapter too",
        "freeze_mm_modules": "freezes what is in the vision and audio towers and projectors, adapters too",
        "gradient_checkpointing": "activation checkpointing",
        "gradient_checkpointing_kwargs": "its kind; non-reentrant where it is left out",
        "plugins": "what other plugins than those for losses and kernels add to the LoRA config is not followed, with a warning",
        **dict(_FIELDS.items()),
    },
    warned={
        "activation_offloading": "the trainer exchanges activation checkpointing for its own offloading",
        "layer_offloading": "the trainer moves frozen layers to the CPU between their uses",
        "relora": "the trainer merges the adapter and begins another every so many steps",
        "qat": "the trainer puts fake quantisation into the linear layers",
        "lisa_n_layers": "the trainer trains other layers every so many steps",
        "peft_autocast_adapter_dtype": "decides whether the adapter is kept in float32",
        "resize_token_embeddings_to_32x": "makes the vocabulary larger",
        "tokens": "new tokens make the vocabulary larger",
        "reinit_weights": "the base model begins at random weights",
        "llama4_linearized_experts": "the experts are linear layers each, and targets by name",
    },
    indifferent=frozenset(
        {
            *(
                "lora_on_cpu",
                "special_tokens",
                "orpo_alpha",
                "eaft_alpha",
                "qlora_sharded_model_loading",
                "merge_lora",
                "ebft",
                "diffusion",
            ),
            *("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "reward_model", "added_tokens_overrides"),
        }
    ),
    read=_read,
)
