"""What the makers of a batch share: the receiver, the inputs made so far, and how tensors are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.batch.fields import image_size, token_ids

if TYPE_CHECKING:
    from peft_inspect.batch.receiver import Receiver

TEXT_LENGTH = 16
Layout = dict[str, Any]  # one way to hand over an input: the input with those that go with it
_BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class Placeholder:
    """A run of placeholder tokens in the text where the features of another modality go."""

    modality: str
    token: int
    count: int
    start: int | None = None  # token before the run
    end: int | None = None  # token after it
    counted: bool = True  # by the model itself; False: a guess for a trial to correct


@dataclass
class Plan:
    """A batch in the making. Makers read the receiver and fill `inputs`; what they could not do they say in `notes`."""

    receiver: Receiver
    inputs: dict[str, Any] = field(default_factory=dict)
    placeholders: list[Placeholder] = field(default_factory=list)
    modalities: dict[str, str] = field(default_factory=dict)  # names of those that have been given, by their main input
    notes: list[str] = field(default_factory=list)
    alternatives: list[Layout] = field(default_factory=list)  # other layouts of what has been given, for a trial
    label_choices: list[torch.Tensor] = field(default_factory=list)  # other labels that a forward of the user's own may mean
    dropped: set[str] = field(default_factory=set)  # inputs that the model does not take, as a trial showed
    widths: set[tuple[str, int, str]] = field(default_factory=set)  # of inputs, that a trial has tried, and for which operation
    size: int = 1  # samples in the batch
    text_length: int = TEXT_LENGTH  # words, without placeholders
    positions: int = 0  # words whose place features take, where a mask says so instead of a token

    def __post_init__(self) -> None:
        parameter = next((p for p in self.receiver.module.parameters() if p.dtype in _FLOATS), None)
        self.dtype = torch.float32 if parameter is None else parameter.dtype
        self.device = torch.device("cpu") if parameter is None or parameter.is_meta else parameter.device
        if "return_loss" in self.receiver.parameters or any(isinstance(m, _BATCH_NORMS) for m in self.receiver.module.modules()):
            self.size = 2
        self.special = token_ids(self.receiver.config)

    @property
    def config(self) -> Any:
        """The config of the (first) transformers model, or None."""
        return self.receiver.config

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of images: what the position embeddings are made for; 224 where any size will do."""
        return image_size(self.config) or (224, 224)

    def wants(self, *names: str) -> bool:
        """Whether the forward takes all these inputs and none has been made, or dropped."""
        return all(name in self.receiver.parameters and name not in self.inputs and name not in self.dropped for name in names)

    def needs(self, name: str) -> bool:
        """Whether this input has no default and has not been made."""
        return name in self.receiver.required and name not in self.inputs

    def give(self, name: str, value: Any) -> None:
        """Set an input if the forward takes it and nobody has."""
        if self.wants(name):
            self.inputs[name] = value

    def drop(self, name: str) -> None:
        """Take an input back for good."""
        del self.inputs[name]
        self.dropped.add(name)

    def floats(self, *shape: int) -> torch.Tensor:
        """Reproducible noise around zero in the model's dtype; the global generator is left alone."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(shape, generator=generator).to(self.dtype).to(self.device)

    def ones(self, *shape: int) -> torch.Tensor:
        """A mask that hides nothing."""
        return torch.ones(shape, dtype=torch.long, device=self.device)

    def zeros(self, *shape: int) -> torch.Tensor:
        """Integer zeros."""
        return torch.zeros(shape, dtype=torch.long, device=self.device)

    def integers(self, values: Any) -> torch.Tensor:
        """An integer tensor of these values."""
        return torch.tensor(values, dtype=torch.long, device=self.device)
