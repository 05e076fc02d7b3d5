"""Help in plain text, options under headings: drawing it with rich would double the time that `--help` takes."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from peft_inspect.formats import FORMATS

ORDER = ("Argument", "Tree", "LoRA", "Model", "Run", "Report", "Options")


class GroupedCommand(TyperCommand):
    """A command whose help lists its options by panel."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section per panel, in ORDER."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(_said(parameter, record, ctx))
        for panel, records in sorted(panels.items(), key=lambda item: ORDER.index(item[0])):
            with formatter.section(panel):
                formatter.write_dl(records)


def _said(parameter: Any, record: tuple[str, str], ctx: Any) -> tuple[str, str]:
    """An argument without its Python type, and the formats that the command has."""
    left, right = record
    if parameter.param_type_name == "argument":
        return parameter.metavar, right
    formats = next((names for command, names in FORMATS.items() if command == ctx.info_name), None)
    if parameter.name == "format_" and formats is not None:
        return left, f"{', '.join(formats)}.  [default: {parameter.default}]"
    return left, right
