"""What `lock` does once its options are read: inspects the targets, writes what is built."""

from __future__ import annotations

import sys
from pathlib import Path

from peft_inspect.cli.inspecting import at_work, failures
from peft_inspect.cli.options import Reporting
from peft_inspect.cli.output import Output
from peft_inspect.environment import environment
from peft_inspect.lock import locked, read_lock, write_lock
from peft_inspect.project.config import read_config
from peft_inspect.project.targets import chosen, inspect_targets, lock_file
from peft_inspect.records import Request


def lock_targets(request: Request, reporting: Reporting, *, config: str | None, processes: int) -> None:
    """Inspect what was named, or all targets of the configuration, and write what is built."""
    with failures(debug=reporting.debug):
        project = read_config(Path.cwd(), config)
        targets = chosen(project, request, reporting.select, reporting.ignore, reporting.fail_on)
        path = Path(reporting.output) if reporting.output else lock_file(project)
        output = Output.to(str(path))
        kept = read_lock(path)["targets"] if path.is_file() and (request.model or request.lora) else {}
        inspected = at_work(
            targets[0].name,
            lambda step: inspect_targets(project, targets, "tree", verify=False, processes=processes, debug=reporting.debug, step=step),
            debug=reporting.debug,
            apart=len(targets) == 1,
        )
        if inspected.failure:
            raise inspected.failure
        built = {name: locked(report.structure) for name, report in inspected.reports.items()}
        output.write(lambda out: write_lock({**kept, **built}, environment(), out))
        layers = sum(len(report.structure.adapter_layers) for report in inspected.reports.values())
        sys.stderr.write(f"peft-inspect: wrote {path}: {len(built)} target{'' if len(built) == 1 else 's'}, {layers} adapter layers\n")
