"""peft-inspect: find out why a LoRA fine-tune does not learn, before it starts.

Importing this package imports nothing else of it, and neither torch nor transformers; the first inspection does.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, which takes a while to import
if TYPE_CHECKING:
    from typing import Any

    from peft_inspect.api import FindingsError, Report, check, gradcheck, inspect, tree
    from peft_inspect.programs import watch
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
    "watch",
]

_RECORDS = ("Finding", "InspectionError", "Request", "Severity")


def __getattr__(name: str) -> Any:
    """Import what is asked for: the command line has to start before it can end cleanly on Ctrl-C."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = {"__version__": "version", "watch": "programs", **dict.fromkeys(_RECORDS, "records")}.get(name, "api")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return __all__
