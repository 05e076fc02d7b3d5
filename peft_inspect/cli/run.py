"""`peft-inspect run SCRIPT`: a training program, unchanged."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from peft_inspect.cli.help import GroupedCommand
from peft_inspect.cli.options import BASELINE, REPORT, RUN, WRITE_BASELINE, Reporting, with_reporting_options


class ProgramCommand(GroupedCommand):
    """What comes after the program's name is the program's, whatever it looks like."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Split where Python itself would."""
        own, program = self._split(ctx, list(args))
        return super().parse_args(ctx, [*own, "--", *program])

    def _split(self, ctx: Any, args: list[str]) -> tuple[list[str], list[str]]:
        flags = {
            name for option in self.get_params(ctx) if getattr(option, "is_flag", False) for name in (*option.opts, *option.secondary_opts)
        }
        at = 0
        while at < len(args):
            name = args[at]
            if name == "--":
                return args[:at], args[at + 1 :]
            if not name.startswith("-") or name == "-":
                return args[:at], args[at:]
            if name.startswith("-m") and not name.startswith("--"):
                after = at + (1 if len(name) > 2 else 2)
                return args[:after], args[after:]
            at += 1 if name in flags or "=" in name or (name[1] != "-" and len(name) > 2) else 2
        return args, []


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=ProgramCommand)(with_reporting_options(run))


def run(
    reporting: Reporting,
    program: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCRIPT [ARGS]…",
            help="A script or an installed command, and what it is given.",
            show_default=False,
            rich_help_panel="Argument",
        ),
    ] = None,
    module: Annotated[
        str | None,
        typer.Option("-m", metavar="MODULE", help="Run a module, as python -m does; ends the list of options.", rich_help_panel=RUN),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", min=1, help="Steps of the optimizer that may be used to answer.", rich_help_panel=RUN)
    ] = 4,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on training, undisturbed, after a report that does not fail.", rich_help_panel=RUN)
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="FORMAT=FILE", help="Write the same report in another format as well; repeatable.", rich_help_panel=REPORT),
    ] = None,
    baseline: BASELINE = None,
    write_baseline: WRITE_BASELINE = None,
    ascii_: Annotated[bool, typer.Option("--ascii", help="7-bit characters only.", rich_help_panel=REPORT)] = False,
) -> None:
    """Run a training program as Python would, watch its first step, report, and stop it.

    A script, an installed command by its name, or with -m a module. The model, its batch, loss, optimizer and adapters are
    the program's own. Where something is wrong, its next steps show where the gradient ends and whether the fix works.
    """
    from peft_inspect.cli.accepting import Accepting
    from peft_inspect.cli.running import run_program

    given = tuple(program or ())
    if module is None and not given:
        raise typer.BadParameter("name the script to run, or a module with -m", param_hint="SCRIPT")
    view = reporting.view("check", ascii=ascii_, tables=reporting.verbosity > 0)
    script = None if module is not None else given[0]
    accepting = Accepting(baseline, write_baseline)
    run_program(
        script,
        module,
        given[script is not None :],
        reporting,
        view,
        steps=steps,
        keep_going=keep_going,
        also=also or (),
        accepting=accepting,
    )
