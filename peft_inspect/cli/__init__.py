"""The command line: parse, call the API, write, exit. One file per command, none of which knows torch."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

import typer

from peft_inspect.cli.commands import Commands
from peft_inspect.cli.streams import FAILED, INTERRUPTED, have_streams, silence
from peft_inspect.cli.version import show_version
from peft_inspect.library_warnings import hide_deprecations

app = typer.Typer(
    name="peft-inspect",
    cls=Commands,
    help="Why does this LoRA fine-tune not learn? The cause, its line of code, and the fix already tried.",
    epilog="Exit codes: 0 nothing found, 1 findings at or above --fail-on, 2 could not inspect, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(show_version)


def main() -> None:
    """The entry point of the `peft-inspect` command."""
    have_streams()
    hide_deprecations()
    interrupted = False

    @atexit.register  # before all others, so that it runs after them
    def stop() -> None:
        if interrupted:
            _stop()

    try:
        app(prog_name="peft-inspect")
    except KeyboardInterrupt:  # outside of an inspection: while parsing or writing
        interrupted = True
        sys.exit(INTERRUPTED)
    except SystemExit as stopped:
        interrupted = stopped.code == INTERRUPTED
        raise
    except OSError as error:  # help, or what bad usage is told: nobody takes it
        silence(sys.stdout)
        silence(sys.stderr)
        sys.exit(0 if isinstance(error, BrokenPipeError) else FAILED)


def _stop() -> None:
    """End at once: taking torch down module by module takes a second, and nobody waits for that after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)
