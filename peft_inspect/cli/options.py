"""The options that tree, gradcheck and check share, as the signatures of two functions, and a decorator that adds them to a command."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from peft_inspect.cli import completion
from peft_inspect.cli.values import assignments, names, names_or_regex
from peft_inspect.formats import Command, View
from peft_inspect.records import Request

LORA, MODEL, RUN, REPORT = "LoRA", "Model", "Run", "Report"
JOBS = Annotated[
    int, typer.Option("-j", "--jobs", metavar="N", min=1, help="Targets inspected at a time, each in its own process.", rich_help_panel=RUN)
]


BASELINE = Annotated[
    str | None, typer.Option(metavar="FILE", help="Accepted findings: only those that are not in it fail.", rich_help_panel=REPORT)
]
WRITE_BASELINE = Annotated[
    str | None, typer.Option(metavar="FILE", help="Accept all that is found now, for --baseline.", rich_help_panel=REPORT)
]


@dataclass(frozen=True)
class Reporting:
    """What to judge by, and where the report goes."""

    format: str
    output: str | None
    select: tuple[str, ...]
    ignore: tuple[str, ...]
    fail_on: str | None  # None: the default of the command
    verify: bool
    debug: bool
    verbosity: int = 0
    color: bool | None = None  # None: where the output is a terminal and NO_COLOR is not set
    width: int | None = None  # columns; None: those of the terminal

    def view(self, command: Command, **drawn: Any) -> View:
        """How this report is drawn; `drawn` are the fields of View that a command has options of its own for."""
        return View(command, verbosity=self.verbosity, color=self.color, width=self.width, **drawn)


def _request(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A hub id, a model or adapter folder, a config.json, arch:TYPE, train.py:build_model, or a configured target.",
            show_default=False,
            rich_help_panel="Argument",
        ),
    ] = None,
    lora: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A LoRA config: PEFT's JSON, YAML or TOML, or a trainer's config file.", rich_help_panel=LORA),
    ] = None,
    target_modules: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names with commas, all-linear, or a regular expression. Default: PEFT's for the architecture.",
            rich_help_panel=LORA,
        ),
    ] = None,
    target_parameters: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Parameter names with commas, such as experts.gate_up_proj.", rich_help_panel=LORA)
    ] = None,
    exclude_modules: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Names with commas, or a regular expression.", rich_help_panel=LORA)
    ] = None,
    modules_to_save: Annotated[str | None, typer.Option(metavar="NAMES", help="Names with commas.", rich_help_panel=LORA)] = None,
    rank: Annotated[
        int | None, typer.Option("-r", "--rank", metavar="N", help="Rank of the adapter. Default: PEFT's, 8.", rich_help_panel=LORA)
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(metavar="X", help="Numerator of the scaling. Default: PEFT's, 8.", rich_help_panel=LORA)
    ] = None,
    task_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="PEFT's task type, such as CAUSAL_LM.", rich_help_panel=LORA)
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Any other field of LoraConfig.", rich_help_panel=LORA)
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="DIR", help="An adapter to load, or to check against a wrapped MODEL.", rich_help_panel=LORA)
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The base model, instead of the one that an adapter names; with --adapter: that of a merged MODEL.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    base_class: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Check an adapter against this model class.", rich_help_panel=MODEL)
    ] = None,
    config_set: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Override a field of the model's config; dots for nested ones.", rich_help_panel=MODEL),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(completion.WEIGHTS),
            help="Default: none, at full size and no memory; your own code decides itself.",
            rich_help_panel=MODEL,
            autocompletion=completion.weights,
        ),
    ] = None,
    as_device: Annotated[
        str | None,
        typer.Option(
            metavar="cuda", help="Without weights: take the ways and kernels that the model takes on a GPU.", rich_help_panel=MODEL
        ),
    ] = None,
    reduce: Annotated[bool, typer.Option("--reduce", help="Shrink the config consistently.", rich_help_panel=MODEL)] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code from the model's repository.", rich_help_panel=MODEL)
    ] = False,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|CALLABLE",
            help="Inputs: .safetensors, .json, or file.py:make_batch. Default: made from what the forward takes.",
            rich_help_panel=RUN,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="CALLABLE",
            help="file.py:loss, called as loss(model, batch). Default: the loss in the output, else the sum of the outputs.",
            rich_help_panel=RUN,
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="CALLABLE",
            help="file.py:optimizer, an optimizer or called as optimizer(model). Default: not checked.",
            rich_help_panel=RUN,
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="Text for the batch.", rich_help_panel=RUN)] = None,
    image: Annotated[str | None, typer.Option(metavar="FILE", help="An image file for the batch.", rich_help_panel=RUN)] = None,
    audio: Annotated[str | None, typer.Option(metavar="FILE", help="An audio file for the batch.", rich_help_panel=RUN)] = None,
) -> Request:
    """Flags as a Request."""
    fields: dict[str, Any] = {
        "target_modules": names_or_regex(target_modules),
        "target_parameters": names(target_parameters),
        "exclude_modules": names_or_regex(exclude_modules),
        "modules_to_save": names(modules_to_save),
        "r": rank,
        "lora_alpha": int(lora_alpha) if lora_alpha is not None and lora_alpha.is_integer() else lora_alpha,
        "task_type": task_type,
    }
    if weights not in (None, *completion.WEIGHTS):
        raise typer.BadParameter(_none_of(weights, completion.WEIGHTS), param_hint="--weights")
    if as_device not in (None, "cuda"):
        raise typer.BadParameter(_none_of(as_device, ("cuda",)), param_hint="--as-device")
    return Request(
        model=model,
        lora=lora,
        lora_fields={**{name: value for name, value in fields.items() if value is not None}, **assignments(set_, "--set")},
        config_fields=assignments(config_set, "--config-set"),
        adapter=adapter,
        base=base,
        base_class=base_class,
        weights=weights,  # type: ignore[arg-type]  # one of the three, as checked above
        as_device=as_device,  # type: ignore[arg-type]  # likewise
        reduce=reduce,
        batch=batch,
        loss=loss,
        optimizer=optimizer,
        text=text,
        image=image,
        audio=audio,
        trust_remote_code=trust_remote_code,
    )


def _reporting(
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="text, json or markdown; tree, gradcheck also html, svg; check also html, sarif, github, junit.",
            rich_help_panel=REPORT,
            autocompletion=completion.formats,
        ),
    ] = "text",
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Write to this file instead of stdout.", rich_help_panel=REPORT)
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULES",
            help="Codes, names or prefixes of the rules to judge by. Default: all.",
            rich_help_panel=REPORT,
            autocompletion=completion.rules,
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULES",
            help="Codes, names or prefixes of the rules to leave out.",
            rich_help_panel=REPORT,
            autocompletion=completion.rules,
        ),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(completion.SEVERITIES),
            help="Exit with 1 from this severity on. Default: error; for tree never.",
            show_default=False,
            rich_help_panel=REPORT,
            autocompletion=completion.severities,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "-q", "--quiet", help="The counts (tree: what is adapted), a line for every finding, the answer.", rich_help_panel=REPORT
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("-v", "--verbose", help="Also which rules were skipped and why; run: its targets.", rich_help_panel=REPORT),
    ] = False,
    color: Annotated[
        str, typer.Option(metavar="|".join(completion.COLORS), help="Colours; auto: on a terminal.", rich_help_panel=REPORT)
    ] = "auto",
    width: Annotated[
        int | None, typer.Option(metavar="N", min=40, help="Columns. Default: those of the terminal.", rich_help_panel=REPORT)
    ] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not try the fixes in memory.", rich_help_panel=REPORT)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=REPORT)] = False,
) -> Reporting:
    """Flags as a Reporting."""
    if fail_on not in (None, *completion.SEVERITIES):
        raise typer.BadParameter(_none_of(fail_on, completion.SEVERITIES), param_hint="--fail-on")
    if color not in completion.COLORS:
        raise typer.BadParameter(_none_of(color, completion.COLORS), param_hint="--color")
    if quiet and verbose:
        raise typer.BadParameter("goes against -v: leave one of them out", param_hint="-q")
    return Reporting(
        format=format_,
        output=output,
        select=_listed(select),
        ignore=_listed(ignore),
        fail_on=fail_on,
        verify=not no_verify,
        debug=debug,
        verbosity=verbose - quiet,
        color={"auto": None, "always": True, "never": False}[color],
        width=width,
    )


def _none_of(value: str, choices: Sequence[str]) -> str:
    """What to say of a value that is no choice: those there are, and the one that was probably meant."""
    meant = difflib.get_close_matches(value.lower(), choices, n=1, cutoff=0.6)
    return f"{value!r} is none of {', '.join(choices)}" + (f"; did you mean {meant[0]!r}?" if meant else "")


def _listed(values: list[str] | None) -> tuple[str, ...]:
    return tuple(name for value in values or () for name in names(value) or ())


def with_shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command of `(request, reporting, its own options)` as one that typer sees all options of, MODEL first."""
    return _with_options_of(command, _request, _reporting)


def with_reporting_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a command of `(reporting, its own options)`."""
    return _with_options_of(command, _reporting)


def _with_options_of(command: Callable[..., None], *builders: Callable[..., Any]) -> Callable[..., None]:
    """The options of these functions, each of which makes one argument of the command; the command's own come after the first of all."""
    shared = {parameter: build for build in builders for parameter in inspect.signature(build).parameters}
    own = list(inspect.signature(command).parameters.values())[len(builders) :]
    # get_type_hints would say Optional of every parameter whose default is None on Python 3.10, around what typer looks for
    annotated = [inspect.get_annotations(function, eval_str=True) for function in (command, *builders)]
    hints = {name: hint for annotations in annotated for name, hint in annotations.items()}
    rest = [parameter for build in builders for parameter in inspect.signature(build).parameters.values()]
    model = [rest.pop(0)] if _request in builders else []
    parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in (*model, *own, *rest)]

    def parsed(**values: Any) -> None:
        built = [build(**{name: values.pop(name) for name, by in shared.items() if by is build}) for build in builders]
        command(*built, **values)

    parsed.__name__, parsed.__doc__ = command.__name__, command.__doc__
    parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect.signature reads
    parsed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return parsed
