"""Regenerate the screens in README and docs from the commands above them, and the pages that are made of the code itself.

    python docs/render.py            # write
    python docs/render.py --check    # exit 1 where a page has drifted

A block follows a comment that holds its command:

    <!-- output: peft-inspect tree arch:llama -->
    ```text
    …
    ```
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.testing import CliRunner

import peft_inspect
from peft_inspect.cli import app
from peft_inspect.load.trainers import DIALECTS
from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.others import NOT_FOLLOWED
from peft_inspect.rules import all_rules, page
from peft_inspect.rules.foreign_formats import FORMATS
from peft_inspect.rules.messages import MESSAGES

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- output: (?P<command>.+?) -->\n```text\n)(?P<output>.*?)(```)", re.DOTALL)
PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "HF_HUB_OFFLINE": "1"}
_HEAD = """# Other people's files

`--lora FILE` takes PEFT's own JSON, YAML or TOML of the same fields, and the files of the trainers below. A trainer's file is read as
that trainer means it: its targets are looked for in the model as the trainer looks for them, and the fields below decide what the
tables say. What is left out has the trainer's default, not PEFT's.

```bash
peft-inspect tree --lora llama3_lora_sft.yaml                  # the base model is the one that the file names
peft-inspect check arch:qwen3_moe --lora llama3_lora_sft.yaml  # or another one
```

- A file is recognised by what only its trainer has. Where two could be meant, a note says which was taken, by which fields.
- A field that matters and is not followed is a note that begins with `warning:` and names it; so is a field that is not known and is
  called as if it mattered. Only fields that decide neither targets, ranks, scaling, initialisation, freezing, precision nor
  checkpointing are said not to matter.
- Where a file resumes a trained adapter, that adapter is loaded and its own config decides.
- PEFT ignores fields of a saved config that it does not know, and so does the tool, with a note; in a file that was written by hand an
  unknown field is an error.
- Flags win over the file: `--lora FILE -r 64`.
"""
_ADAPTERS = """## Adapter files

`peft-inspect check ADAPTER --base MODEL` compares the tensors of an adapter with the layers of its base, by name and shape, without
weights, and their values with those of a live model. Formats of other tools are told by their keys; where every tensor has one place,
`--suggest FOLDER` writes the adapter as PEFT loads it, and `--suggest FILE.json` the config.
"""
_SESSION = """```pycon
>>> import peft_inspect
>>> from peft import LoraConfig, get_peft_model
>>> from transformers import LlamaConfig, LlamaForCausalLM
>>> shape = dict(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
>>> model = get_peft_model(LlamaForCausalLM(LlamaConfig(**shape)), LoraConfig(target_modules=["q_proj", "v_proj"])).train()
>>> peft_inspect.check(model)
<Report of PeftModel: all 8 adapter parameters train>
>>> report = peft_inspect.check(model.requires_grad_(False))
>>> [(finding.code, finding.verified) for finding in report.findings]
[('PI302', '8/8 parameters train with requires_grad=True')]
>>> report.raise_for_findings()  # doctest: +ELLIPSIS
Traceback (most recent call last):
    ...
peft_inspect.inspection.FindingsError: PeftModel → LoraModel → LlamaForCausalLM
...
>>> print(peft_inspect.tree(model, depth=0, columns=("params", "dtype")))  # doctest: +ELLIPSIS
PeftModel → LoraModel → LlamaForCausalLM
...
```
"""
_MERGED = """## Merged weights

```bash
peft-inspect check MERGED --adapter ADAPTER --base BASE
```

Every tensor that the adapter changes is merged anew by PEFT's own code, from the base, and compared with the merged checkpoint, bit for
bit, in the precisions in which people merge: that of the base, that of the merged files, and float32. LoRA, DoRA, rank patterns,
embeddings, `modules_to_save`, single tokens, fused experts and other tuners are told alike: merged, not applied, applied twice, with
another scaling, another adapter, or some layers left out. A merge whose last places differ, as one on another device, is a merge.
What could not be judged is a note. The files are read in pieces: what is held in memory is a piece of one tensor, but for layers that
can only be merged as a whole.
"""


def screen(command: str) -> str:
    """What a command of peft-inspect prints at 80 columns, without colour, when it is run from the root of the project."""
    name, *arguments = shlex.split(command)
    assert name == "peft-inspect", f"only the tool's own output is shown: {command}"
    if arguments[0] == "run":  # a program of its own
        command = [sys.executable, "-m", "peft_inspect", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **PLAIN})
        assert done.returncode in (0, 1), done.stderr
        return done.stdout
    ran = CliRunner().invoke(app, arguments, env=PLAIN)
    assert ran.exit_code in (0, 1), ran.stderr
    return "\n".join(line.rstrip() for line in ran.stdout.splitlines()) + "\n"


def rendered(text: str) -> str:
    """A page with every block replaced by what its command prints now."""
    return BLOCK.sub(lambda block: block[1] + screen(block["command"]) + block[4], text)


def rule_pages() -> str:
    """docs/rules.md: the page of every rule, from its module."""
    lines = ["# Rules", "", "Generated from the rules themselves; `peft-inspect explain RULE` prints a page with its examples.", ""]
    lines += ["| code | name | severity |", "|---|---|---|"]
    lines += [f"| [{rule.code}](#{rule.code.lower()}-{rule.name}) | {rule.name} | {rule.severity} |" for rule in all_rules()]
    for rule in all_rules():
        lines += ["", f"## {rule.code} {rule.name}", "", page(rule)]
    return "\n".join(lines) + "\n"


def message_page() -> str:
    """docs/messages.md: what people saw before they came here, and the rules that tell the causes apart."""
    name = {rule.code: rule.name for rule in all_rules()}
    lines = ["# Which message did you see?", ""]
    lines += ["Search this page for the words on your screen, or ask the tool:", ""]
    lines += ["```bash", 'peft-inspect explain "None of the inputs have requires_grad=True"', "```", ""]
    lines += ["A message is where the search begins: which of its causes it is, a run of your own program tells, with the line.", ""]
    lines += ["```bash", "peft-inspect run train.py", "```"]
    for message in MESSAGES:
        links = ", ".join(f"[{code} {name[code]}](rules.md#{code.lower()}-{name[code]})" for code in message.rules)
        said = f"Said by {message.said_by}. " if message.said_by else ""
        lines += ["", f"## {_plain(message.text)}", "", f"{said}{message.means}", "", f"Told apart by {links}."]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A heading as it stands: nothing in it is markup."""
    return re.sub(r"([*<>\[\]|])", r"\\\1", text)


def command_page() -> str:
    """docs/commands.md: every command with its arguments and options, from the same declarations that `--help` prints."""
    lines = ["# Commands", "", "Generated from the declarations that `--help` prints.", ""]
    lines += ["| exit code | meaning |", "|---|---|", "| 0 | inspected; nothing at or above `--fail-on` |"]
    lines += ["| 1 | inspected; findings at or above `--fail-on` |"]
    lines += ["| 2 | could not inspect: one message on stderr says what to do |", "| 130 | interrupted |"]
    group = typer.main.get_command(app)
    above = typer.Context(group, help_option_names=["-h", "--help"])  # as on the command line
    for name in group.list_commands(above):
        command = group.get_command(above, name)
        context = typer.Context(command, info_name=name, parent=above)
        lines += ["", f"## peft-inspect {name}", "", inspect.cleandoc(command.help or ""), "", "| | |", "|---|---|"]
        records = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
        lines += [f"| `{left.replace('|', chr(92) + '|')}` | {right.replace('|', chr(92) + '|')} |" for left, right in records]
    return "\n".join(lines) + "\n"


def api_page() -> str:
    """docs/api.md: the public names of the package, with their signatures and docstrings."""
    lines = ["# Python API", "", "Generated from the docstrings. Importing `peft_inspect` imports no torch; the first inspection does."]
    lines += ["", *_SESSION.splitlines()]
    for name in peft_inspect.__all__:
        if name.startswith("__"):
            continue
        value = getattr(peft_inspect, name)
        signature = inspect.signature(value) if inspect.isfunction(value) else ""
        text = inspect.cleandoc(value.__doc__ or "")
        lines += ["", f"## {name}", "", "```python", f"peft_inspect.{name}{signature}", "```", "", "```text", text, "```"]
        for method, function in vars(value).items() if inspect.isclass(value) else ():
            if inspect.isfunction(function) and not method.startswith("_") and function.__doc__:
                head = f"{name}.{method}{inspect.signature(function)}"
                lines += ["", "```python", head, "```", "", "```text", inspect.cleandoc(function.__doc__), "```"]
    return "\n".join(lines) + "\n"


def files_page() -> str:
    """docs/files.md: what is read of other people's files, from the dialects themselves."""
    others = ", ".join(NOT_FOLLOWED)
    lines = [_HEAD.rstrip(), "", "| trainer | version read | follows |", "|---|---|---|"]
    lines += [f"| [{one.trainer}](#{_anchor(one)}) | {one.version} | {_code(one.follows)} |" for one in DIALECTS]
    lines += ["", f"Known by sight, and refused by name: {others}.", *(line for one in DIALECTS for line in _section(one))]
    lines += ["", _ADAPTERS.rstrip(), "", "| written by | what to do |", "|---|---|"]
    lines += [f"| {form.name} | {form.how} |" for form in FORMATS]
    lines += ["", _MERGED.rstrip()]
    return "\n".join(lines) + "\n"


def _section(dialect: Dialect) -> Iterator[str]:
    yield from ("", f"## {dialect.trainer}", "", "| field | decides |", "|---|---|")
    yield from (f"| `{name}` | {_cell(text)} |" for name, text in dialect.decides.items())
    if dialect.warned:
        yield from ("", "Not followed, with a warning:", "", "| field | what it would do |", "|---|---|")
        yield from (f"| `{name}` | {_cell(text)} |" for name, text in dialect.warned.items())


def _anchor(dialect: Dialect) -> str:
    return "".join(letter for letter in dialect.trainer.lower().replace(" ", "-") if letter.isalnum() or letter == "-")


def _code(text: str) -> str:
    return ", ".join(f"`{part.strip()}`" for part in text.split(","))


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


GENERATED = {"rules.md": rule_pages, "messages.md": message_page, "commands.md": command_page, "api.md": api_page, "files.md": files_page}


def pages() -> dict[Path, str]:
    """Every generated page as it should read."""
    sources = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = {path: path.read_text(encoding="utf-8") for path in sources}
    screens = {path: rendered(text) for path, text in texts.items() if BLOCK.search(text)}
    return screens | {ROOT / "docs" / name: make() for name, make in GENERATED.items()}


def main() -> int:
    """Write the pages, or name those that have drifted."""
    drifted = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in drifted:
            print(f"{path.relative_to(ROOT)} has drifted: run python docs/render.py")
        return bool(drifted)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
