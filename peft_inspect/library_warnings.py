"""Warnings of libraries about each other, which the reader of a report cannot fix."""

import warnings

_LIBRARIES = r"(torch|transformers|peft)\."


def hide_deprecations() -> None:
    """In a process of ours, until `as_the_program_has_them`; what `-W` asks for comes first and still counts."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=_LIBRARIES, append=True)


def as_the_program_has_them() -> None:
    """A program that is run unchanged warns of what it warns of."""
    warnings.filters[:] = [entry for entry in warnings.filters if getattr(entry[3], "pattern", None) != _LIBRARIES]  # type: ignore[index]
