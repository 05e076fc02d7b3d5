"""What `lock` does once its options are read."""

from __future__ import annotations

import sys
from pathlib import Path

from peft_inspect.cli.checking import lock_file
from peft_inspect.cli.inspecting import failures
from peft_inspect.cli.options import Reporting
from peft_inspect.cli.output import Output
from peft_inspect.cli.targets import chosen, inspect_all, together
from peft_inspect.config import read_config
from peft_inspect.formats import View
from peft_inspect.formats.json import environment
from peft_inspect.lock import locked, read_lock, write_lock
from peft_inspect.records import Request


def lock_targets(request: Request, reporting: Reporting, *, config: str | None, processes: int) -> None:
    """Inspect what was named, or all targets of the configuration, and write what is built."""
    with failures(debug=reporting.debug):
        project = read_config(Path.cwd(), config)
        targets = chosen(project, request, reporting)
        path = Path(reporting.output) if reporting.output else lock_file(project)
        output = Output.to(str(path))
        kept = read_lock(path)["targets"] if path.is_file() and (request.model or request.lora) else {}
        reports, failed = inspect_all(targets, reporting, View("tree"), processes)
        if failed:
            raise together(failed, targets, project)
        built = {name: locked(report.structure) for name, report in reports.items()}
        output.write(lambda out: write_lock({**kept, **built}, environment(), out))
        layers = sum(len(report.structure.adapter_layers) for report in reports.values())
        sys.stderr.write(f"peft-inspect: wrote {path}: {len(built)} target{'' if len(built) == 1 else 's'}, {layers} adapter layers\n")
