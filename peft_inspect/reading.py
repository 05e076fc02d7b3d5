"""The one place where files of text are read, and no more of them than a file of its kind can need.

A pipe, a device and a file of 200 GB are each refused before they are read.
"""

from __future__ import annotations

import stat
from pathlib import Path

from peft_inspect.records import InspectionError

_LONGEST = 64 << 20  # bytes of a text file: a config with a name for each of a million labels has a third of it


def user_path(text: str) -> Path:
    """A path as typed, `~` and `~name` resolved.

    Raises:
        InspectionError: there is no user of that name, or it is longer than any path can be.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except RuntimeError as error:
        raise InspectionError(f"{text!r} begins with a user whose home is not known: write the whole path") from error
    except ValueError as error:
        raise InspectionError(f"{text!r} can be no path: {error}") from error
    except OSError as error:
        raise InspectionError(f"{text!r} can be no path: {error.strerror}") from error
    return path


def read_text(path: Path, *, encoding: str = "utf-8", errors: str = "strict", most: int = _LONGEST) -> str:
    """The text of a file.

    Args:
        path: of a regular file, or a link to one.
        encoding: of the text.
        errors: what to do about bytes that are no text, as in `bytes.decode`.
        most: bytes that it may have.

    Raises:
        InspectionError: there is no such file, it is a pipe or a device, it is too long, or it is not text.
    """
    try:
        with regular(path).open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            size = max(path.stat().st_size, len(data))
            raise InspectionError(f"{path} has {size:,} bytes, and no more than {most:,} are read of a file of its kind")
        return data.decode(encoding, errors).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InspectionError(f"{path} is not a text file (byte {error.start} is not UTF-8)") from error
    except OSError as error:
        raise InspectionError(f"{path} cannot be read: {error.strerror}") from error


def regular(path: Path) -> Path:
    """The path itself, of a file that has an end.

    Raises:
        InspectionError: nothing is there, or it is a folder, a pipe, a socket or a device, which may never end or never begin.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise InspectionError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be looked into, a null character
        raise InspectionError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        raise InspectionError(f"{path} is {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'} where a file is needed")
    return path
