"""The user's own code: `train.py:build_model` and `package.module:build_model`."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import operator
import re
import sys
import textwrap
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from peft_inspect.load.words import did_you_mean, listed
from peft_inspect.reading import read_text
from peft_inspect.records import InspectionError, Source, text_of
from peft_inspect.reversible import patched
from peft_inspect.tracebacks import of_the_user

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_T = TypeVar("_T")
_REFERENCE = re.compile(r"(?P<module>.+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
_TRAINING = frozenset({"main", "train", "fit", "backward", "step"})


def is_reference(text: str) -> bool:
    """Whether `text` is spelled like an object in the user's code, `file.py:name` or `package.module:name`."""
    return _REFERENCE.fullmatch(text) is not None


class UserCode:
    """The user's modules during one load: each is imported once, so that model and batch of one file share it."""

    def __init__(self) -> None:
        self._modules: dict[str, ModuleType] = {}

    def object(self, reference: str) -> Any:
        """The object that `reference` names.

        Raises:
            InspectionError: it is missing, or importing its module raised; then with the user's traceback.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise InspectionError(f"{reference!r} is neither file.py:name nor package.module:name")
        module = self._module(match["module"])
        try:
            return operator.attrgetter(match["name"])(module)
        except AttributeError:
            names = [
                name for name, value in vars(module).items() if callable(value) and getattr(value, "__module__", None) == module.__name__
            ]
            hint = did_you_mean(match["name"], names) or (f"; it defines {listed(names)}" if names else "")
            raise InspectionError(f"{match['module']} has no {match['name']!r}{hint}") from None

    def file(self, reference: str) -> str | None:
        """The path of the file that `reference` points into, as the user would write it."""
        path = getattr(self._module(reference.rpartition(":")[0]), "__file__", None)
        return None if path is None else _shown(Path(path))

    def entry(self, reference: str) -> Source | None:
        """The first line of the callable that `reference` names; None for a module object and what has no source."""
        try:
            found = inspect.unwrap(self.object(reference))
            path, (lines, first) = inspect.getsourcefile(found), inspect.getsourcelines(found)
        except (OSError, TypeError):
            return None
        head = next((number for number, line in enumerate(lines) if line.lstrip().startswith(("def ", "class ", "async def "))), 0)
        return None if path is None else Source(_shown(Path(path)), first + head, found.__name__, lines[head].strip())

    def _module(self, name: str) -> ModuleType:
        if name not in self._modules:
            self._modules[name] = _import_file(Path(name)) if name.endswith(".py") else _import_package(name)
        return self._modules[name]


def call(what: str, function: Callable[..., _T], *args: Any, otherwise: str = "") -> _T:
    """Call the user's function; what it prints goes to stderr, since stdout belongs to the report.

    Raises:
        InspectionError: it wants other arguments, and `otherwise` says what to do; or it raised, and the detail is its own traceback.
    """
    _require_arguments(what, function, len(args), otherwise)
    return guarded(f"{what} raised", lambda: function(*args))


def only_trains(function: Callable[..., Any]) -> bool:
    """Whether a plain function trains and gives no model, as the `main` of a training program does."""
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0] if inspect.isfunction(function) else None
    except (OSError, TypeError, SyntaxError, ValueError):
        return False
    return isinstance(node, ast.FunctionDef) and _only_trains(node)


def whole_program(reference: str) -> str:
    """The command that inspects the program that `reference` points into, as it runs."""
    module = reference.rpartition(":")[0]
    return f"peft-inspect run {module if module.endswith('.py') else f'-m {module}'}"


def _import_file(path: Path) -> ModuleType:
    """Import a script as `python path` would: its folder first on sys.path, its name that of the file."""
    if not path.is_file():
        raise InspectionError(f"there is no file {path}")
    read_text(path)  # Python would read all of a file without end
    folder, name = str(path.resolve().parent), path.stem
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # A script called like a module that is loaded already (types.py, torch.py) must not replace it.
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) != str(path.resolve()):
        name = f"{name}_as_script"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise InspectionError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickles look their module up while it does
    try:
        guarded(f"importing {path} raised", lambda: spec.loader.exec_module(module), str(path))  # type: ignore[union-attr]
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_package(name: str) -> ModuleType:
    """Import a module as `python -m` would: the working folder first on sys.path."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    except Exception:  # a parent package that raises: the import below says so with the user's traceback
        found = True  # type: ignore[assignment]
    if found is None:
        beside = " (for a file, write its .py)" if Path(*name.split(".")).with_suffix(".py").is_file() else ""
        raise InspectionError(f"there is no module {name!r} in {folder} or on Python's path{beside}")
    module: ModuleType = guarded(f"importing {name} raised", lambda: importlib.import_module(name))
    return module


def _require_arguments(what: str, function: Callable[..., Any], given: int, otherwise: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin without a signature: the call itself will tell
        return
    try:
        signature.bind(*[None] * given)
    except TypeError as error:
        raise InspectionError(
            f"{what} is called with {given or 'no'} argument{'s' if given != 1 else ''}, and takes {signature}: {error}"
            + (f"; {otherwise}" if otherwise else "")
        ) from None


def guarded(what: str, run: Callable[[], _T], script: str = "") -> _T:
    """Run code that is not ours, on an empty command line; what it prints goes to stderr.

    Args:
        what: the start of the error, such as "importing train.py raised".
        run: called without arguments.
        script: the script that it is, if it is one.

    Raises:
        InspectionError: it raised, or left the program; the detail is its own traceback.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), patched((sys, "argv", lambda own: [script or own[0]])):
            return run()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also what ends a program, or a task: it must not pass for a verdict
        said = text_of(error)
        detail = of_the_user(error)
        if script and isinstance(error, SystemExit):
            raise InspectionError(f"{what} {said}{_on_leaving(error, script)}") from error
        raise InspectionError(f"{what} {said}", detail=detail) from error


def _on_leaving(error: SystemExit, script: str) -> str:
    """Where a script ended itself, and what to do: mostly one that parses its arguments."""
    frames = traceback.extract_tb(error.__traceback__)
    where = next((f" at {script}:{frame.lineno} ({frame.line})" for frame in frames if Path(frame.filename) == Path(script).resolve()), "")
    whole = whole_program(f"{script}:")
    return f'{where}: put that under `if __name__ == "__main__":`, or inspect the program as it runs: {whole} ARGUMENTS'


def _shown(path: Path) -> str:
    """Relative to the working folder where it lies below it."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _only_trains(function: ast.FunctionDef) -> bool:
    """Whether a function trains and returns no value: it is called so, loops, or calls what is called so."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
    inner = [node for node in ast.walk(function) if isinstance(node, kinds) and node is not function]
    within = {id(node) for other in inner for node in ast.walk(other)}
    own = [node for node in ast.walk(function) if id(node) not in within]
    if function.decorator_list or any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own):
        return False
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in own
        if isinstance(node, ast.Call)
    }
    trains = not _TRAINING.isdisjoint({*called, function.name}) or any(isinstance(node, ast.For | ast.While) for node in own)
    return trains and not any(isinstance(node, ast.Return) and node.value for node in own)


def defined_names(path: Path) -> list[str]:
    """What may build a model in a Python file, without running it: functions that return something, classes, variables called so."""
    try:
        tree = ast.parse(read_text(path))
    except (InspectionError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    assigned = [target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)]
    defined = [
        node.name for node in tree.body if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and not _only_trains(node))
    ]
    return list(dict.fromkeys((*defined, *(name for name in assigned if "model" in name.lower()))))
