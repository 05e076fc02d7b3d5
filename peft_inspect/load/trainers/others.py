"""Trainers whose files are known by sight and not followed: each is refused by its name, with what to pass instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft_inspect.load.trainers.reader import has_value
from peft_inspect.load.words import listed
from peft_inspect.records import InspectionError

NOT_FOLLOWED = {  # a trainer → groups of fields, dotted inside sections, each of which is there in its files alone
    "kohya's sd-scripts": (("network_module",), ("network_dim", "network_alpha"), ("network_arguments.network_dim",)),
    "diffusion-pipe": (("adapter.type", "optimizer.type"), ("adapter.rank", "model.transformer_path")),
    "ai-toolkit": (("config.process",), ("network.linear", "network.linear_alpha")),
    "OneTrainer": (("training_method", "lora_rank"), ("lora_rank", "concept_file_name")),
    "SimpleTuner": (("lora_rank", "model_family"), ("lora_type", "model_family")),
    "AutoTrain": (("task", "base_model", "project_name"),),
    "LMFlow": (("use_lora", "lora_r"), ("use_qlora", "lora_r")),
    "oumi": (("training.use_peft",), ("peft.lora_r", "peft.lora_target_modules"), ("training.trainer_type",)),
    "Ludwig": (("adapter.type", "input_features"),),
    "mistral-finetune": (("lora.rank", "model_id_or_path"),),
    "H2O LLM Studio": (("training.lora_r",), ("training.lora_alpha",)),
    "NeMo or Megatron-Bridge": (
        ("peft.peft_scheme",),
        ("model.peft.peft_scheme",),
        ("peft.lora_tuning",),
        ("model.peft.lora_tuning.adapter_dim",),
    ),
    "NeMo-RL": (("policy.dtensor_cfg.lora_cfg",), ("policy.megatron_cfg.peft",)),
    "XTuner": (("lora.type", "llm.pretrained_model_name_or_path"),),
    "Levanter": (("lora.r", "trainer.tracker"),),
    "torchtitan": (("job.config_file", "model.flavor"),),
    "trlX": (("method.name", "model.peft_config"),),
    "LLaVA's scripts": (("lora_enable",), ("mm_projector_type", "lora_r")),
    "MS-AMP or DeepSpeed": (("zero_optimization", "train_micro_batch_size_per_gpu"),),
    "accelerate": (("compute_environment", "distributed_type"),),
}


def refuse(data: Mapping[str, Any], where: str) -> None:
    """Nothing where no such trainer is seen.

    Raises:
        InspectionError: the file is one of a trainer that is not followed.
    """
    for trainer, groups in NOT_FOLLOWED.items():
        seen = next((group for group in groups if all(has_value(data, name) for name in group)), None)
        if seen is not None:
            raise InspectionError(
                f"{where} looks like a config of {trainer} (by {listed(seen)}), whose way to read it is not followed here: "
                "give PEFT's own fields instead, as --target-modules, -r and --lora-alpha, or name train.py:build_model, what it builds"
            )
