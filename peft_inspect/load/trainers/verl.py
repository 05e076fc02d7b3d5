"""verl: a `model` section with `lora_rank`, alone (`path`), or under `actor_rollout_ref`.

Follows `_build_lora_module` of verl/workers/engine/fsdp/transformer_impl.py and the defaults of verl/trainer/config/model/hf_model.yaml,
read in 0.10.0.dev (1dda039b9, August 2026). Its Megatron engines adapt modules of Megatron's names, and are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.reader import has_value
from peft_inspect.load.trainers.recognised import Recognised, Settings, present

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_SECTIONS = ("actor_rollout_ref.model.", "model.", "critic.model.", "")  # where the fields may be, in the order in which they are taken
_FIELDS = {
    "path": "the base model",
    "lora_rank": "r; 0 for no LoRA",
    "lora_alpha": "lora_alpha, 16 where it is left out",
    "target_modules": "target_modules, all-linear where it is left out",
    "target_parameters": "target_parameters",
    "exclude_modules": "exclude_modules",
    "lora_adapter_path": "the trained adapter that is resumed; its own config wins",
    "enable_gradient_checkpointing": "activation checkpointing, non-reentrant, on where it is left out",
    "lora.rank": "r of a Megatron engine, which is refused",
}


def _read(reader: Reader) -> Recognised:
    found = [section for section in _SECTIONS if reader.has(f"{section}lora_rank") or reader.has(f"{section}lora_adapter_path")]
    with_rank = [section for section in found if reader.take(f"{section}lora_rank", 0) or reader.take(f"{section}lora_adapter_path")]
    if not with_rank:
        megatron = [section for section in _SECTIONS if reader.take(f"{section}lora.rank", 0)]
        raise reader.refusal(
            "for a Megatron engine, whose modules have other names: give what transformers would adapt, with --target-modules"
            if megatron
            else "with lora_rank: 0, which trains no LoRA"
        )
    section, *others = with_rank
    targets = reader.take(f"{section}target_modules", "all-linear")
    excluded = reader.take(f"{section}exclude_modules")
    fields = {
        "task_type": "CAUSAL_LM",
        "r": reader.whole(f"{section}lora_rank", 0) or 1,
        "lora_alpha": reader.number(f"{section}lora_alpha", 16),
        "target_modules": targets if isinstance(targets, str) else reader.names(f"{section}target_modules"),
        "target_parameters": reader.names(f"{section}target_parameters"),
        "exclude_modules": excluded if isinstance(excluded, str) else reader.names(f"{section}exclude_modules"),
    }
    return Recognised(
        fields=present(fields),
        model=reader.text(f"{section}path"),
        settings=Settings(
            bool(reader.take(f"{section}enable_gradient_checkpointing", True)), {"use_reentrant": False}, input_gradients=True
        ),
        notes=tuple(f"{reader.where}: the LoRA of {section[:-1]} is taken, that of {other[:-1]} beside it is not" for other in others),
        resumed=reader.text(f"{section}lora_adapter_path"),
    )


DIALECT = Dialect(
    trainer="verl",
    version="0.10.0.dev",
    follows="verl.workers.engine.fsdp.transformer_impl._build_lora_module, verl/trainer/config/model/hf_model.yaml",
    own=frozenset(
        {"actor_rollout_ref.model.lora_rank", "lora_adapter_path", "model.lora_adapter_path", "model.lora_rank", "use_remove_padding"}
    )
    | frozenset({"model.use_remove_padding", "critic.model.lora_rank", "enable_activation_offload", "actor_rollout_ref.model.lora"})
    | frozenset({"actor_rollout_ref.model.lora_adapter_path"}),
    told=lambda data: not has_value(data, "model._component_"),  # torchtune's models have a lora_rank, too
    decides={f"{section}{name}": text for section in _SECTIONS for name, text in _FIELDS.items()},
    warned={f"{section}external_lib": "a library of one's own may change the model" for section in _SECTIONS},
    indifferent=frozenset({"actor_rollout_ref.rollout", "actor_rollout_ref.actor", "actor_rollout_ref.ref", "critic.optim", "reward_model"})
    | frozenset(
        f"{section}{name}" for section in _SECTIONS for name in ("use_fused_kernels", "fused_kernel_options", "enable_activation_offload")
    ),
    read=_read,
)
