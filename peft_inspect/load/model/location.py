"""A place that holds a model's or an adapter's files: a local folder or a hub repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Location(Protocol):
    """Where files are looked for by name; looking never fetches more than the file asked for."""

    @property
    def name(self) -> str:
        """As the user named it."""

    def find(self, file: str) -> Path | None:
        """The file on this machine, fetched first if need be; None where there is none.

        Raises:
            InspectionError: the place cannot be reached or read.
        """

    def absent(self, file: str) -> str:
        """Why `file` was not found, as a sentence for an error."""

    def notes(self) -> tuple[str, ...]:
        """What to know about the files that were found."""

    def checkpoint(self) -> Path:
        """The folder that holds the weights, fetched first if need be."""

    def processor(self) -> Path:
        """The folder that holds tokenizer and processor files, fetched first if need be."""


class Folder:
    """A local folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def find(self, file: str) -> Path | None:
        """The file in the folder, or None."""
        path = self.path / file
        return path if path.is_file() else None

    def absent(self, file: str) -> str:
        """That the folder has no such file, and what it has."""
        path = self.path / file
        if path.is_symlink() and not path.exists():
            return f"{path} is a link to {path.readlink()}, and nothing is there"
        if path.exists():
            return f"{path} is {'a folder' if path.is_dir() else 'a device or a pipe'} where a file is needed"
        try:
            names = sorted(entry.name for entry in self.path.iterdir())
        except OSError as error:
            return f"{self.path} cannot be read: {error.strerror}"
        return f"{self.path} has no {file}" + (f"; it holds {', '.join(names[:6])}" if names else "; it is empty")

    def notes(self) -> tuple[str, ...]:
        """Nothing: the files are those that the user named."""
        return ()

    def checkpoint(self) -> Path:
        """The folder itself."""
        return self.path

    def processor(self) -> Path:
        """The folder itself."""
        return self.path
