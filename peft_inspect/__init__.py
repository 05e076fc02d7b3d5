"""peft-inspect: find out why a LoRA fine-tune does not learn, before it starts.

Importing this package imports neither torch nor transformers; the first inspection does.
"""

from peft_inspect.api import FindingsError, Report, check, gradcheck, inspect, tree
from peft_inspect.records import Finding, InspectionError, Request, Severity
from peft_inspect.version import __version__

__all__ = [
    "Finding",
    "FindingsError",
    "InspectionError",
    "Report",
    "Request",
    "Severity",
    "__version__",
    "check",
    "gradcheck",
    "inspect",
    "tree",
]
