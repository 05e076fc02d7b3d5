"""What is there: modules, parameters, adapters, towers, targets and adapter files. Nothing in this room runs."""

from peft_inspect.structure.adapter_files import adapter_evidence
from peft_inspect.structure.reading import read_structure

__all__ = ["adapter_evidence", "read_structure"]
