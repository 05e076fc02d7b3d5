"""Running a program as Python itself would: a script, a folder or archive, a module, or an installed command by its name."""

from __future__ import annotations

import importlib.machinery
import io
import os
import pkgutil
import runpy
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from peft_inspect.records import InspectionError


@dataclass(frozen=True)
class Launch:
    """What to run, and what it is given."""

    script: str | None  # a file, a folder or archive with a `__main__.py`, or the name of an installed command
    module: str | None
    arguments: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """As it was named on the command line."""
        named = (f"-m {self.module}",) if self.module is not None else (str(self.script),)
        return " ".join((*named, *self.arguments))


@dataclass(frozen=True)
class Prepared:
    """Code, and the module `__main__` that it runs in."""

    code: CodeType
    main: ModuleType


def prepare(launch: Launch) -> Prepared:
    """Set up `sys.argv`, `sys.path[0]` and `__main__` as Python does before it runs the first line.

    Raises:
        InspectionError: there is no such file, module or command.
    """
    main = ModuleType("__main__")
    vars(main).update(__builtins__=sys.modules["builtins"], __file__=None, __cached__=None, __package__=None)
    if launch.module is not None:
        code = _of_module(launch.module, launch.arguments, main)
    else:
        code = _of_script(str(launch.script), launch.arguments, main)
    sys.modules["__main__"] = main
    return Prepared(code, main)


def _of_script(name: str, arguments: tuple[str, ...], main: ModuleType) -> CodeType:
    file = name if Path(name).exists() else _command(name)
    sys.argv[:] = [file, *arguments]
    importer = None if Path(file).is_file() and not _is_archive(file) else pkgutil.get_importer(file)
    if importer is not None:
        _first_on_path(file)
        spec: Any = importer.find_spec("__main__")
        if spec is None:
            raise InspectionError(f"{file} holds no __main__.py: there is nothing in it to run")
        vars(main).update(__spec__=spec, __loader__=spec.loader, __file__=spec.origin, __package__="")
        return _code(spec.loader, "__main__")
    absolute = os.path.abspath(file)  # noqa: PTH100  # as Python does: links stay what they are called
    _first_on_path(os.path.dirname(os.path.realpath(file)))  # noqa: PTH120
    loader = importlib.machinery.SourceFileLoader("__main__", absolute)
    vars(main).update(__spec__=None, __loader__=loader, __file__=absolute)
    if file.endswith(".pyc"):
        return _code(importlib.machinery.SourcelessFileLoader("__main__", absolute), "__main__")
    with io.open_code(absolute) as source:
        return compile(source.read(), absolute, "exec", dont_inherit=True)


def _of_module(name: str, arguments: tuple[str, ...], main: ModuleType) -> CodeType:
    sys.argv[:] = ["-m", *arguments]  # what the package itself sees while it is imported
    _first_on_path(str(Path.cwd()))
    try:
        _, spec, code = runpy._get_module_details(name)  # type: ignore[attr-defined]  # what `python -m` itself calls
    except ImportError as error:
        raise InspectionError(f"there is no module {name} to run: {error}") from error
    sys.argv[0] = spec.origin
    vars(main).update(__spec__=spec, __loader__=spec.loader, __file__=spec.origin, __cached__=spec.cached, __package__=spec.parent)
    found: CodeType = code
    return found


def _is_archive(file: str) -> bool:
    return type(pkgutil.get_importer(file)).__name__ == "zipimporter"


def _code(loader: Any, name: str) -> CodeType:
    code: CodeType = loader.get_code(name)
    return code


def _first_on_path(folder: str) -> None:
    """In the place of what Python has put there for this tool."""
    if getattr(sys.flags, "safe_path", False):  # from Python 3.11 on
        return
    if sys.path:
        sys.path[0] = folder
    else:
        sys.path.append(folder)


def _command(name: str) -> str:
    """The file of an installed command: beside this interpreter, else on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.sep not in name and beside.is_file() else shutil.which(name)
    if found is None:
        raise InspectionError(f"there is no file {name}, and no installed command of that name")
    with Path(found).open("rb") as file:
        first = file.read(400)  # where the path is long, the first line starts a shell, and the second one Python
    if not (first.startswith(b"#!") and b"python" in first) and not found.endswith(".py"):
        raise InspectionError(f"{found} is no Python program: name the script or, with -m, the module that it starts")
    return found
