"""What a fix is tried on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft_inspect.records import AdapterLayerInfo, Finding, Subject, Trace


@dataclass(frozen=True)
class Patient:
    """What a remedy is applied to."""

    subject: Subject
    trace: Trace
    finding: Finding
    batch: dict[str, Any]  # a copy of this try

    @property
    def rows(self) -> tuple[AdapterLayerInfo, ...]:
        """The adapter layer rows of the finding: of the adapter it is about, else of those in use."""
        modules, adapter = set(self.finding.modules), self.finding.facts.get("adapter")
        rows = (layer for layer in self.trace.structure.adapter_layers if layer.path in modules)
        return tuple(layer for layer in rows if (layer.active if adapter is None else layer.adapter == adapter))

    @property
    def layers(self) -> tuple[Any, ...]:
        """The adapter layers of the finding, live, each once."""
        return tuple(self.subject.model.get_submodule(path) for path in dict.fromkeys(row.path for row in self.rows))
