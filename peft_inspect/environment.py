"""What a report depends on besides its input."""

from __future__ import annotations

import platform


def environment() -> dict[str, str]:
    """Versions of what a report depends on, read without importing any of it."""
    versions = {"python": platform.python_version()}
    return {**versions, **{library: _version(library) for library in ("torch", "transformers", "peft")}}


def _version(library: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
