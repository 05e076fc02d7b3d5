"""Models whose code lies in their own repository: run only where the user has said that it may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_inspect.internals import require
from peft_inspect.load.model.hub import Repository
from peft_inspect.load.model.model_config import overridden
from peft_inspect.load.quiet import quiet
from peft_inspect.load.user_code import guarded
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PretrainedConfig, PreTrainedModel

    from peft_inspect.load.model.location import Location

# The whole before its parts, as with transformers' own classes.
_AUTO_CLASSES = ("AutoModelForImageTextToText", "AutoModelForSpeechSeq2Seq", "AutoModelForSeq2SeqLM", "AutoModelForCausalLM")
_AUTO_CLASS_OF_TASK = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}


def has_code(data: Mapping[str, Any]) -> bool:
    """Whether a config.json names classes in its own repository."""
    return bool(data.get("auto_map"))


def remote_classes(
    data: Mapping[str, Any], location: Location, overrides: Mapping[str, Any], task_type: str | None
) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    """Import the repository's config and model classes, which runs its code, and make the config.

    Args:
        data: the contents of the config.json.
        location: the repository or folder.
        overrides: config values by dotted key.
        task_type: PEFT's task type, which chooses among several model classes.

    Raises:
        InspectionError: no model class is named, or the code raises; then with its traceback.
    """
    auto_map: Mapping[str, Any] = data["auto_map"]
    wanted = (_AUTO_CLASS_OF_TASK.get(task_type or "", ""), *_AUTO_CLASSES)
    models = [name for name in (*wanted, *auto_map) if name in auto_map and name.startswith("AutoModel")]
    if not models:
        raise InspectionError(f"{location.name} brings code but names no model class in its auto_map")
    model: type[PreTrainedModel] = _imported(auto_map[models[0]], location)
    config_class = _imported(auto_map["AutoConfig"], location) if "AutoConfig" in auto_map else model.config_class
    config: PretrainedConfig = guarded(f"the config class of {location.name} raised", lambda: config_class.from_dict(dict(data)))
    return (overridden(config, data, overrides) if overrides else config), model


def _imported(reference: str, location: Location) -> Any:
    def fetch() -> Any:
        with quiet():
            revision = location.revision if isinstance(location, Repository) else None
            source = location.repo if isinstance(location, Repository) else location.name
            return require("get_class_from_dynamic_module")(reference, source, revision=revision, code_revision=revision)

    return guarded(f"the code of {location.name} raised", fetch)
