"""torchtune: a YAML whose `model` is a `_component_` with `lora_attn_modules`.

Follows the `lora_…` builders in torchtune/models/*/_component_builders.py and _model_builders.py (for models of several parts those of
llama3_2_vision and llama4), `set_trainable_params` and `get_adapter_params` as called in recipes/lora_finetune_distributed.py, read in
0.7.0 (bd2a0fc7c, April 2026). torchtune builds the model itself; shown are the layers of the same weights in transformers' model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.layers_by_work import Layers
from peft_inspect.load.trainers.recognised import Chosen, Recognised, Settings
from peft_inspect.load.trainers.search import as_targets, language_model

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "output_proj": "attention output"}
_MLP = ("gate", "up", "down")
_PARTS = ("decoder_trainable", "encoder_trainable", "fusion_trainable")
_DEFAULT_PARTS = {  # by the family of the builder: what each part gets where nothing is said
    "llama3_2_vision": ("frozen", "lora", "lora"),
    "llama4": ("lora", "frozen", "lora"),
}
_DEFAULTS = {"lora_rank": ("r", 8), "lora_alpha": ("lora_alpha", 16), "lora_dropout": ("lora_dropout", 0.0)}
_FUSION = ("cross_attn", "global_transformer", "multi_modal_projector")  # what ties image and text, by transformers' names
_VISION = {"query": ("q_proj",), "key": ("k_proj",), "value": ("v_proj",), "attention output": ("o_proj",)}
_VISION_MLP = ("fc1", "fc2")


def _read(reader: Reader) -> Recognised:
    component = str(reader.take("model._component_", "its own model class"))
    if not reader.has("model.lora_attn_modules"):
        raise reader.refusal(f"with model: {component}, which trains no LoRA")
    names = reader.names("model.lora_attn_modules") or []
    if unknown := [name for name in names if name not in _ATTENTION]:
        raise reader.refusal(f"with lora_attn_modules: {unknown[0]}, where it knows {', '.join(_ATTENTION)}")
    family = next((part for part in component.split(".") if part in _DEFAULT_PARTS), None)
    choices = _Choices(
        attention=tuple(_ATTENTION[name] for name in names),
        mlp=bool(reader.take("model.apply_lora_to_mlp")),
        output=bool(reader.take("model.apply_lora_to_output")),
        parts=_parts(reader, family),
    )
    fields = {field: reader.number(f"model.{name}", default) for name, (field, default) in _DEFAULTS.items()}
    settings = Settings(bool(reader.take("enable_activation_checkpointing", False)), {"use_reentrant": False})
    return Recognised(
        fields={"task_type": "CAUSAL_LM", **fields, **reader.renamed({"model.use_dora": "use_dora"})},
        model=_checkpoint_folder(reader),
        settings=settings,
        notes=(f"{component} is inspected as transformers' model of the same weights, with transformers' module names",),
        for_model=partial(_for_model, choices),
    )


class _Choices:
    """Which works of which parts get adapters."""

    def __init__(self, attention: tuple[str, ...], *, mlp: bool, output: bool, parts: Mapping[str, str] | None) -> None:
        self.attention, self.mlp, self.output, self.parts = attention, mlp, output, parts

    @property
    def works(self) -> list[str]:
        """Of a decoder."""
        return [*self.attention, *(_MLP if self.mlp else ()), *(("head",) if self.output else ())]


def _parts(reader: Reader, family: str | None) -> Mapping[str, str] | None:
    if family is None and not any(reader.has(f"model.{part}") for part in _PARTS):
        return None
    defaults = dict(zip(_PARTS, _DEFAULT_PARTS.get(family or "", ("frozen", "frozen", "frozen")), strict=True))
    found = {part: reader.one_of(f"model.{part}", ("lora", "frozen", "full"), defaults[part]) for part in _PARTS}
    if full := [part for part, value in found.items() if value == "full"]:
        raise reader.refusal(f"with {full[0]}: full, which torchtune refuses beside LoRA")
    return found


def _for_model(choices: _Choices, model: Any, fields: Mapping[str, Any]) -> Chosen:
    if choices.parts is None or language_model(model) is None:
        return Layers(model).chosen(choices.works, "torchtune", fields)
    layers, works = Layers(model, without=_FUSION), choices.works if choices.parts["decoder_trainable"] == "lora" else []
    chosen, decoder = layers.chosen(works, "torchtune", fields), [path for work in works for path in layers.paths_for(work)]
    paths = [
        path for part in ("encoder", "fusion") if choices.parts[f"{part}_trainable"] == "lora" for path in _beside(model, choices, part)
    ]
    return Chosen({**chosen.fields, "target_modules": as_targets([*decoder, *paths], model)}, chosen.notes)


def _beside(model: Any, choices: _Choices, part: str) -> list[str]:
    """Layers of the vision encoder, or of what ties it to the decoder, that get adapters."""
    inside = language_model(model)
    linear = Layers(model, inside="").paths
    fusion = [path for path in linear if any(text in path for text in _FUSION)]
    layers = fusion if part == "fusion" else [path for path in linear if path not in fusion and not path.startswith(f"{inside}.")]
    names = {name for work in choices.attention for name in _VISION[work]}
    names |= {*_VISION_MLP, "gate_proj", "up_proj", "down_proj"} if choices.mlp else set()
    projector = [path for path in layers if "multi_modal_projector" in path] if part == "fusion" and choices.output else []
    return [path for path in layers if path.rpartition(".")[2] in names and path != "lm_head"] + projector


def _checkpoint_folder(reader: Reader) -> str | None:
    """The folder with the base model's files, where it lies on this machine."""
    folder = reader.mapping("checkpointer").get("checkpoint_dir")
    return folder if isinstance(folder, str) and Path(folder).is_dir() else None


DIALECT = Dialect(
    trainer="torchtune",
    version="0.7.0",
    follows="torchtune.models.*._component_builders, recipes/lora_finetune_distributed.py",
    own=frozenset({"model.lora_attn_modules", "model._component_", "model.apply_lora_to_mlp"}),
    told=lambda data: "lora_attn_modules" in data["model"] or str(data["model"].get("_component_")).startswith("torchtune."),
    decides={
        "model._component_": "the builder, and with it what a model of several parts adapts where nothing is said",
        "model.lora_attn_modules": "adapters in the attention, by torchtune's names",
        "model.apply_lora_to_mlp": "adapters in the MLPs, the experts included",
        "model.apply_lora_to_output": "an adapter on the head; with a trained fusion on the projector",
        "model.decoder_trainable": "adapters in the language model: `lora` or `frozen`",
        "model.encoder_trainable": "adapters in the vision encoder",
        "model.fusion_trainable": "adapters in cross-attention and projector",
        "model.use_dora": "use_dora",
        "checkpointer.checkpoint_dir": "the folder of the base model",
        "enable_activation_checkpointing": "activation checkpointing",
        **{f"model.{name}": f"{field}, {default} where it is left out" for name, (field, default) in _DEFAULTS.items()},
    },
    warned={"quantizer": "fake quantisation of the linear layers"},
    indifferent=frozenset({"checkpointer", "save_adapter_weights_only", "enable_activation_offloading", "model.image_size"}),
    read=_read,
)
