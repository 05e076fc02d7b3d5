"""Which class a configuration is built with: what the config names, what the task asks for, what the type is for."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import TYPE_CHECKING, Any

import transformers
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from peft_inspect.load.words import did_you_mean
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The classes that a PEFT task type is trained with. Multimodal models generate text too, so they answer to CAUSAL_LM.
_OF_TASK = {
    "CAUSAL_LM": ("MULTIMODAL_LM", "IMAGE_TEXT_TO_TEXT", "CAUSAL_LM"),
    "SEQ_2_SEQ_LM": ("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "MULTIMODAL_LM", "IMAGE_TEXT_TO_TEXT"),
    "SEQ_CLS": ("SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "VIDEO_CLASSIFICATION"),
    "TOKEN_CLS": ("TOKEN_CLASSIFICATION", "AUDIO_FRAME_CLASSIFICATION"),
    "QUESTION_ANS": ("QUESTION_ANSWERING", "DOCUMENT_QUESTION_ANSWERING", "VISUAL_QUESTION_ANSWERING"),
    "FEATURE_EXTRACTION": ("",),
}

_CLASS_NAME = re.compile(r"^(?!Auto).+(Model$|For[A-Z])")

# Without architectures and task: what the model type is for, the whole before its parts. A multimodal config has a
# causal LM for its text part, a dual encoder an image classifier for one tower, an encoder a causal variant.
_BY_PURPOSE = (
    "MULTIMODAL_LM",
    "IMAGE_TEXT_TO_TEXT",
    "SPEECH_SEQ_2_SEQ",
    "TEXT_TO_SPECTROGRAM",
    "TEXT_TO_WAVEFORM",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "MASKED_LM",
    "CAUSAL_LM",
    "CTC",
    "RNNT",
    "TDT",
    "ZERO_SHOT_IMAGE_CLASSIFICATION",
    "ZERO_SHOT_OBJECT_DETECTION",
    "OBJECT_DETECTION",
    "UNIVERSAL_SEGMENTATION",
    "INSTANCE_SEGMENTATION",
    "VISUAL_QUESTION_ANSWERING",
    "IMAGE_CLASSIFICATION",
    "VIDEO_CLASSIFICATION",
    "AUDIO_CLASSIFICATION",
    "SEMANTIC_SEGMENTATION",
    "DEPTH_ESTIMATION",
    "TIME_SERIES_PREDICTION",
    "MASK_GENERATION",
    "PRETRAINING",
    "",
)


def model_class(config: PretrainedConfig, task_type: str | None = None, wanted: str | None = None) -> type[PreTrainedModel]:
    """The class to build from a configuration.

    Args:
        config: the configuration; its `architectures` name the class that the checkpoint was saved with.
        task_type: PEFT's task type; wins over `architectures` where that class does another task.
        wanted: a class name that wins over everything.

    Raises:
        InspectionError: there is no such class, or transformers has none for this configuration.
    """
    if wanted is not None:
        return _named_class(wanted)
    found = next(model_classes(config, task_type), None)
    if found is None:
        name = type(config).__name__
        raise InspectionError(
            f"transformers has no model class for the configuration {name}: it configures a part of another model, or no model"
        )
    return found


def model_classes(config: PretrainedConfig, task_type: str | None = None) -> Iterator[type[PreTrainedModel]]:
    """The classes that take a configuration, the most fitting first; some may come twice."""
    saved_with = list(_architectures(config))
    for_task = list(_mapped(config, _OF_TASK.get(task_type or "", ())))
    yield from (found for found in saved_with if not for_task or found in for_task)
    yield from for_task
    yield from _mapped(config, _BY_PURPOSE)
    yield from _mapped(config, _all_purposes())
    yield from _defined_beside(config)


def config_for(model: type[PreTrainedModel], config: PretrainedConfig) -> PretrainedConfig:
    """The part of a composite configuration that a class takes: a text-only class takes the text part."""
    expected = getattr(model, "config_class", None)
    if expected is None or isinstance(config, expected):
        return config
    parts = [part for name in config.sub_configs if isinstance(part := getattr(config, name, None), expected)]
    return parts[0] if parts else config


def _named_class(name: str) -> type[PreTrainedModel]:
    found = getattr(transformers, name, None)
    if isinstance(found, type) and issubclass(found, PreTrainedModel):
        return found
    models = (known for known in dir(transformers) if _CLASS_NAME.search(known) and known != name)
    raise InspectionError(f"transformers {transformers.__version__} has no model class {name!r}{did_you_mean(name, models)}")


def _architectures(config: PretrainedConfig) -> Iterator[type[PreTrainedModel]]:
    for name in config.architectures or ():
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, PreTrainedModel):
            yield found


def _mapped(config: PretrainedConfig, purposes: Iterable[str]) -> Iterator[type[PreTrainedModel]]:
    """The classes that transformers' auto mappings hold for this configuration, in the order of `purposes`."""
    for purpose in purposes:
        mapping: Any = getattr(modeling_auto, f"MODEL_FOR_{purpose}_MAPPING" if purpose else "MODEL_MAPPING", None)
        try:
            found = mapping[type(config)] if mapping is not None and type(config) in mapping else ()
        except (ImportError, ValueError, AttributeError):  # an entry whose class is not there, or needs a package that is not
            continue
        yield from found if isinstance(found, tuple) else (found,)


def _all_purposes() -> list[str]:
    """Every mapping of the installed transformers: newer ones have purposes that are not listed above."""
    names = (name for name in vars(modeling_auto) if name.startswith("MODEL_FOR_") and name.endswith("_MAPPING"))
    return sorted(name.removeprefix("MODEL_FOR_").removesuffix("_MAPPING") for name in names)


def _defined_beside(config: PretrainedConfig) -> Iterator[type[PreTrainedModel]]:
    """Classes in no auto mapping: those in the modelling files beside the configuration that take it, the last defined first."""
    package = importlib.import_module(type(config).__module__.rpartition(".")[0])
    for file in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if not file.name.startswith("modeling_"):
            continue
        try:
            modeling = importlib.import_module(f"{package.__name__}.{file.name}")
        except ImportError:
            continue
        yield from (found for found in reversed(list(vars(modeling).values())) if _takes(found, config, modeling.__name__))


def _takes(found: Any, config: PretrainedConfig, module: str) -> bool:
    return (
        isinstance(found, type)
        and issubclass(found, PreTrainedModel)
        and found.__module__ == module
        and getattr(found, "config_class", None) is type(config)
        and "PreTrainedModel" not in found.__name__
    )
