"""Warnings of libraries about each other, which the reader of a report cannot fix."""

import warnings


def hide_deprecations() -> None:
    """In a process of ours, for good; what `-W` asks for comes first and still counts."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|transformers|peft)\.", append=True)
