"""What the user named, and the live model that it became."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from peft_inspect.records.adapter_file import AdapterFile
from peft_inspect.records.basics import Source, Weights

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Request:
    """What the user asked to have inspected, as given on the command line; `load` turns it into a `Subject`."""

    model: str | None = None  # every MODEL form; None: the model id that the LoRA file names
    lora: str | None = None  # a LoRA or trainer config file
    lora_fields: Mapping[str, Any] = field(default_factory=dict)  # LoraConfig fields from flags; they win over the file
    config_fields: Mapping[str, Any] = field(default_factory=dict)  # model config overrides, dotted keys
    adapter: str | None = None  # a folder or hub id to load onto the model, or to check against it
    base: str | None = None  # overrides the base model that an adapter names
    base_class: str | None = None  # check against this class instead of the one trained on
    weights: Literal["none", "random", "pretrained"] | None = None  # None: the default of the MODEL form
    as_device: Literal["cuda"] | None = None  # take the ways that the model would take there; only without weights
    reduce: bool = False  # shrink the config consistently
    batch: str | None = None  # a file, or file.py:callable
    loss: str | None = None  # file.py:callable
    optimizer: str | None = None  # file.py:callable
    text: str | None = None  # the user's own content for the batch, through local processor files
    image: str | None = None
    audio: str | None = None
    trust_remote_code: bool = False


@dataclass
class Subject:
    """The live model and what is run with it. The only mutable record; never leaves the rooms that know torch."""

    model: torch.nn.Module
    source: str  # as the user named it, or the class for a live object
    weights: Weights = "user"
    batch: Mapping[str, Any] | None = None  # keyword inputs; None: made by the first pass, once
    loss: Callable[[Any, Any], torch.Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None
    adapter_files: tuple[AdapterFile, ...] = ()
    requested: Mapping[str, Any] | None = None  # the LoRA fields that were asked for, when the tool did the wrapping
    source_file: str | None = None  # config or script that findings without a line of code are shown on
    entry: Source | None = None  # where the callable that was named begins
    notes: tuple[str, ...] = ()  # what loading decided and the report should say ("recognised axolotl YAML", "reduced to …")
    content: Mapping[str, str] = field(default_factory=dict)  # text / image / audio paths of the user for the batch
    folder: str | None = None  # local folder with tokenizer and processor files, when there is one
    base_name: str | None = None  # where MODEL is an adapter: its base, as it was named
    merged_onto: tuple[str, str] | None = None  # folders of a merged checkpoint, which the model was built from, and of its base
    batch_by: str = "user"  # who made the batch, where there is one
    as_device: str | None = None  # whose ways the run takes, where that is another one than it runs on
    changes: Any = None  # a `run.changes.Changes`: what the user's own code did to the model before, where that was watched
