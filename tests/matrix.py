"""The tool in one environment per combination of versions: `python tests/matrix.py` makes, installs and checks each of them.

    python tests/matrix.py                   # every row
    python tests/matrix.py oldest newest     # some rows
    python tests/matrix.py --write           # every row, and those that are green into the table of docs/versions.md
    python tests/matrix.py --smoke newest    # README's main command and the rules' examples only
    python tests/matrix.py --keep FOLDER     # in environments that stay there, and are brought up to date the next time

Every row runs README's main command and a fixed sample of the tests; tests that cannot run on a row skip with the reason
of the dependency. A row whose Python is not installed is left out; one that does not install fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "versions.md"
TABLE = re.compile(r"(<!-- matrix -->\n).*?(<!-- end of matrix -->)", re.DOTALL)
MAIN = re.compile(r"<!-- main-command -->\n```bash\n(?P<command>.+?)\n```", re.DOTALL)
CAUSE = ("LoRA params with gradients: 0/384", "PI303", "docs/examples/speech_emotion.py:98", "verified: 384/384")
EXAMPLES = ("tests/test_rules.py",)
SAMPLE = (
    *EXAMPLES,
    *("tests/test_internals.py", "tests/test_undisturbed.py", "tests/structure/test_structure.py", "tests/integrations/test_trainer.py"),
)
SHOWN = ("torch", "transformers", "peft")
TEST_TOOLS = ("pytest", "pytest-xdist", "accelerate")


@dataclass(frozen=True)
class Row:
    """One environment: a Python, and what pip is told beside the project itself."""

    name: str
    python: str  # "" for the one that runs this
    packages: tuple[str, ...]
    what: str


LOWEST = ("torch==2.9.1", "transformers==4.57.6", "peft==0.18.1", "typer==0.16.0", "rich==13.7.0")
NEWEST = ("--upgrade", "--upgrade-strategy", "eager")
ROWS = (
    Row("oldest", "3.10", LOWEST, "the lower bounds of pyproject.toml"),
    Row("4.57", "3.11", ("torch==2.9.1", "transformers==4.57.6", "peft==0.19.1"), "the last transformers 4"),
    Row("middle", "3.12", ("torch==2.12.1", "transformers==5.8.1", "peft==0.20.0"), "half-way"),
    Row("pinned", "", ("--constraint", "constraints.txt"), "constraints.txt"),
    Row("pinned-3.12", "3.12", ("--constraint", "constraints.txt"), "constraints.txt on a newer Python"),
    Row("pinned-3.13", "3.13", ("--constraint", "constraints.txt"), "constraints.txt on the newest Python"),
    Row("newest", "", NEWEST, "what a plain install gives today"),
    Row("newest-3.14", "3.14", NEWEST, "the same on a Python that is not promised yet"),
)


class RowError(Exception):
    """A row that is not green; the message says what failed."""


def python_of(row: Row) -> str | None:
    """The interpreter of a row; None where it is not installed."""
    if not row.python:
        return sys.executable
    named = shutil.which(f"python{row.python}")
    candidates = [*([named] if named else []), *map(str, sorted(Path.home().glob(f".pyenv/versions/{row.python}.*/bin/python")))]
    return next((python for python in candidates if _says(python, "import sys; print('%d.%d' % sys.version_info[:2])") == row.python), None)


def _says(python: str, program: str) -> str:
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else ""


def install(row: Row, python: str, folder: Path) -> Path:
    """The environment there, made where there is none, with the project and the test tools in it; its interpreter."""
    inside = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not inside.exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
    command = [str(inside), "-m", "pip", "install", "--quiet", *row.packages, "--editable", ".", *TEST_TOOLS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:] or ["nothing"]
        raise RowError(f"the row {row.name!r} could not be installed, so it was not checked (is there a network?); pip said: {said[0]}")
    return inside


def main_command(python: Path) -> None:
    """README's main command, as it is written there but for the environment that it makes."""
    written = MAIN.search((ROOT / "README.md").read_text(encoding="utf-8"))
    if written is None:
        raise RowError("README.md has no main command")
    arguments = shlex.split(written["command"].rpartition("&&")[2])[1:]
    done = subprocess.run([str(python), "-m", "peft_inspect", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    missing = [text for text in CAUSE if text not in done.stdout]
    if done.returncode or missing:
        raise RowError(f"README's main command exited with {done.returncode} and did not say {missing}: {done.stderr[-500:]}")
    if done.stderr:
        raise RowError(f"README's main command wrote what is not its own on stderr: {done.stderr[:500]}")


def run_tests(python: Path, files: Iterable[str]) -> Mapping[str, int]:
    """How many tests passed, and how many were skipped."""
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-rfE", "--tb=short", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    if done.returncode or not counts.get("passed"):
        raise RowError(f"the tests exited with {done.returncode}:\n{done.stdout[-6000:]}{done.stderr[-1000:]}")
    return counts


def versions_of(python: Path) -> dict[str, str]:
    """The Python and the libraries that were installed."""
    program = (
        "import json, platform; from importlib.metadata import version; "
        f"print(json.dumps({{'python': platform.python_version(), **{{name: version(name) for name in {SHOWN}}}}}))"
    )
    return dict(json.loads(_says(str(python), program)))


def check(row: Row, python: str, *, smoke: bool, keep: Path | None) -> str:
    """One row of the table."""
    with nullcontext(keep / row.name) if keep else tempfile.TemporaryDirectory(prefix=f"matrix-{row.name}-") as folder:
        inside = install(row, python, Path(folder))
        versions = versions_of(inside)
        print(f"{row.name}: {', '.join(f'{name} {number}' for name, number in versions.items())}", flush=True)
        main_command(inside)
        counts = run_tests(inside, EXAMPLES if smoke else SAMPLE)
    cells = (row.name, row.what, *versions.values(), "as in README", f"{counts['passed']} passed, {counts.get('skipped', 0)} skipped")
    return f"| {' | '.join(cells)} |"


def table(lines: Iterable[str]) -> str:
    """The lines of rows under a head, in the order of the rows."""
    head = ("row", "what", "Python", *SHOWN, "main command", "sample of the tests")
    of_row = {line.split("|")[1].strip(): line for line in lines}
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(of_row[row.name] for row in ROWS if row.name in of_row)])


def write(done: Iterable[str]) -> None:
    """Put the rows that were checked into the page; those that were not stay as they are."""
    page = PAGE.read_text(encoding="utf-8")
    found = TABLE.search(page)
    if found is None:
        raise RowError(f"{PAGE} has no place for the table")
    kept = [line for line in found[0].splitlines() if line.startswith("| ")][1:]
    PAGE.write_text(TABLE.sub(lambda place: f"{place[1]}{table([*kept, *done])}\n{place[2]}", page), encoding="utf-8")


def main() -> int:
    """Check the rows that were asked for; 1 where one is not green."""
    parser = argparse.ArgumentParser(description="The tool in one environment per combination of versions.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(row.name for row in ROWS)}; all by default")
    parser.add_argument("--smoke", action="store_true", help="only README's main command and the rules' examples")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="where the environments stay for the next time; thrown away by default")
    parser.add_argument("--write", action="store_true", help="write the rows that are green into the table of docs/versions.md")
    asked = parser.parse_args()
    if unknown := set(asked.rows) - {row.name for row in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    done, failed = [], False
    for row in ROWS:
        if asked.rows and row.name not in asked.rows:
            continue
        python = python_of(row)
        if python is None:
            print(f"{row.name}: Python {row.python} is not installed here, so this row was not checked", flush=True)
            failed = failed or row.name in asked.rows
            continue
        try:
            done.append(check(row, python, smoke=asked.smoke, keep=asked.keep))
        except RowError as error:
            print(f"{row.name}: {error}", file=sys.stderr, flush=True)
            failed = True
        else:
            print(f"{row.name}: green", flush=True)
            if asked.write:  # row by row: what is known stays known when a later row is interrupted
                write(done)
    print("", table(done), sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
