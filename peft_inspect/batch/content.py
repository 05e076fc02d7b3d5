"""The user's own text, image and sound, through the tokenizer or processor files of a local folder."""

from __future__ import annotations

import wave
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoTokenizer

from peft_inspect.records import InspectionError, Subject, text_of

if TYPE_CHECKING:
    from peft_inspect.batch.plan import Plan

_ALONE = {"text": AutoTokenizer, "image": AutoImageProcessor, "audio": AutoFeatureExtractor}
_DEFAULT_TEXT = "A lighthouse keeper counted ships until the fog came in, and then he counted horns."


def make(plan: Plan, subject: Subject) -> bool:
    """Fill the batch from `subject.content`; False where the user gave none and no tokenizer helps.

    Raises:
        InspectionError: there are no processor files, a file cannot be read, or the processor refuses the content.
    """
    if subject.content:
        plan.inputs.update(_accepted(plan, _processed(subject)))
        return True
    if subject.folder is None or not any(Path(subject.folder).glob("tokenizer*")) or not _text_only(plan):
        return False
    try:
        tokenizer = AutoTokenizer.from_pretrained(subject.folder, local_files_only=True)
        plan.inputs.update(_accepted(plan, tokenizer(_DEFAULT_TEXT, return_tensors="pt")))
    except Exception as error:  # a tokenizer that does not load is no reason not to inspect the model
        plan.notes.append(f"the tokenizer in {subject.folder} was not used: {text_of(error)}".splitlines()[0])
        return False
    plan.notes.append("a sentence through the folder's own tokenizer")
    return True


def _text_only(plan: Plan) -> bool:
    return "input_ids" in plan.receiver.parameters and not any(
        name.startswith(("pixel", "input_features", "input_values", "bbox", "image", "audio", "video")) for name in plan.receiver.parameters
    )


def _processed(subject: Subject) -> Mapping[str, Any]:
    given = ", ".join(f"--{kind}" for kind in subject.content)
    if subject.folder is None:
        raise InspectionError(f"{given} needs tokenizer or processor files: name a local model folder that holds them, or pass --batch")
    processor = _processor(subject.folder, tuple(subject.content), given)
    arguments = _arguments(subject.content, processor)
    try:
        processed: Mapping[str, Any] = processor(**arguments, return_tensors="pt")
    except Exception as error:  # whatever the processor objects to is for the user to read
        raise InspectionError(f"{type(processor).__name__} refused {given}: {text_of(error)}") from error
    return processed


def _processor(folder: str, kinds: tuple[str, ...], given: str) -> Any:
    """The folder's processor; for one kind of content, what reads that kind alone is enough."""
    processor, why = _loaded(AutoProcessor, folder)
    if processor is None and len(kinds) == 1:
        processor, _ = _loaded(_ALONE[kinds[0]], folder)
    if processor is None:
        raise InspectionError(f"{given} needs tokenizer or processor files, and those in {folder} do not load: {why}")
    return processor


def _loaded(loader: Any, folder: str) -> tuple[Any, str]:
    """What a loader makes of the folder, else None and why it made nothing."""
    try:
        return loader.from_pretrained(folder, local_files_only=True), ""
    except Exception as error:  # missing files, files of another version, a processor that needs another package
        return None, text_of(error)


def _arguments(content: Mapping[str, str], processor: Any) -> dict[str, Any]:
    """What the processor is called with; placeholders for image and sound come before the text."""
    arguments: dict[str, Any] = {}
    text = content.get("text", _DEFAULT_TEXT if hasattr(processor, "tokenizer") else "")
    if "image" in content:
        arguments["images"] = _image(content["image"])
        text = _with_token(processor, "image_token", text)
    if "audio" in content:
        extractor = getattr(processor, "feature_extractor", processor)
        rate = getattr(extractor, "sampling_rate", 16_000)
        name = "audio" if hasattr(processor, "tokenizer") else "raw_speech"
        arguments |= {name: _sound(content["audio"], rate).numpy(), "sampling_rate": rate}
        text = _with_token(processor, "audio_token", text)
    if text:
        arguments["text"] = text
    return arguments


def _with_token(processor: Any, name: str, text: str) -> str:
    token = getattr(processor, name, None)
    return f"{token}{text}" if isinstance(token, str) and token not in text else text


def _image(path: str) -> Any:
    try:
        from PIL import Image

        with Image.open(path) as opened:
            return opened.convert("RGB")
    except ImportError as error:
        raise InspectionError("--image needs the package Pillow: pip install pillow") from error
    except OSError as error:
        raise InspectionError(f"--image {path} cannot be read: {error}") from error


def _sound(path: str, rate: int) -> torch.Tensor:
    """A WAV file as one channel of floats at `rate` samples per second."""
    try:
        with wave.open(path, "rb") as file:
            width, channels, own_rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise InspectionError(f"--audio {path} cannot be read as a WAV file: {error}") from error
    if width != 2:
        raise InspectionError(f"--audio {path} has {8 * width} bits per sample; convert it to a WAV file of 16 bits")
    samples = torch.frombuffer(bytearray(data), dtype=torch.int16).float().reshape(-1, channels).mean(dim=1) / 32768
    if own_rate == rate:
        return samples
    length = round(len(samples) * rate / own_rate)
    return torch.nn.functional.interpolate(samples[None, None], size=length, mode="linear")[0, 0]


def _accepted(plan: Plan, processed: Mapping[str, Any]) -> dict[str, Any]:
    """Those inputs the forward takes, on the model's device and, where floating, in its dtype."""
    accepted = {name: value for name, value in processed.items() if name in plan.receiver.parameters}
    for name, value in accepted.items():
        if isinstance(value, torch.Tensor):
            accepted[name] = value.to(plan.device, plan.dtype) if value.is_floating_point() else value.to(plan.device)
    return accepted
