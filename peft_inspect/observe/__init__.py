"""The only room that runs a model: what is there, what ran, what reached the loss."""

from peft_inspect.observe.adapter_files import adapter_evidence
from peft_inspect.observe.remedies import verified
from peft_inspect.observe.structure import read_structure
from peft_inspect.observe.trace import run_trace

__all__ = ["adapter_evidence", "read_structure", "run_trace", "verified"]
