"""What a fix is tried on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft_inspect.records import AdapterLayerInfo, Finding, Subject, Trace


@dataclass(frozen=True)
class Candidate:
    """What a remedy is applied to."""

    subject: Subject
    trace: Trace
    finding: Finding
    batch: dict[str, Any]  # a copy of this try

    @property
    def rows(self) -> tuple[AdapterLayerInfo, ...]:
        """The adapter layer rows of the finding: of the adapter it is about, else of those in use."""
        modules, adapter = set(self.finding.modules), self.finding.adapter
        rows = (layer for layer in self.trace.structure.adapter_layers if layer.path in modules)
        return tuple(layer for layer in rows if (layer.active if adapter is None else layer.adapter == adapter))

    @property
    def saved(self) -> dict[str, list[str]]:
        """The weights of trained copies in `modules_to_save` that the finding is about, by the module that they stand for."""
        found: dict[str, list[str]] = {}
        active = {adapter.name for adapter in self.trace.structure.adapters if adapter.active}
        for parameter in self.trace.structure.parameters:
            module = parameter.path.partition(".modules_to_save.")[0]
            if parameter.role == "saved" and parameter.adapter in active and module in self.finding.modules:
                found.setdefault(module, []).append(parameter.path)
        return found

    @property
    def weights(self) -> dict[str, list[Any]]:
        """The weights that the finding says get no gradient, live, by module."""
        paths = self.saved
        for row in self.rows:
            paths.setdefault(row.path, []).extend(row.parameters)
        return {module: [self.subject.model.get_parameter(path) for path in of_module] for module, of_module in paths.items()}

    @property
    def wrappers(self) -> tuple[Any, ...]:
        """The modules of `modules_to_save` of the finding, live."""
        return tuple(self.subject.model.get_submodule(path) for path in self.saved)

    @property
    def layers(self) -> tuple[Any, ...]:
        """The adapter layers of the finding, live, each once."""
        return tuple(self.subject.model.get_submodule(path) for path in dict.fromkeys(row.path for row in self.rows))
