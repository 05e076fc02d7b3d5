"""The rows of docs/distributed.md as programs: each trains ten steps bare, ten under watch, and once for each fault.

Run them all, or those that are named, as the tests do:

    torchrun --nproc_per_node 2 tests/distributed/rows.py ddp fsdp2

Every process writes what it saw to the folder in ROWS_OUT, or prints it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))

from names import FAULTS
from names import ROWS as NAMES
from runtimes import ROWS, Training

import peft_inspect
from peft_inspect.inspection import FindingsError, Report

STEPS = 10


def trained(training: Training, steps: int = STEPS) -> list[Any]:
    """The losses of each step, and afterwards every weight that is trained."""
    losses = [training.step(number) for number in range(steps)]
    return [*losses, *(parameter.tolist() for parameter in training.weights())]


def watched(run: Callable[[], Any]) -> tuple[Any, Mapping[str, Report], str, float]:
    """What a program returned under watch, what was found, why nothing was judged, and how long it ran on after the finding."""
    returned, began = None, time.perf_counter()
    watching = peft_inspect.watch()
    with suppress(FindingsError), watching:
        returned = run()
    found = watching.reports
    assert watching._session is not None
    at = max((report.timings["total_s"] for report in found.values()), default=0.0)
    return returned, found, watching._session.refused, time.perf_counter() - began - at


def shown(found: Mapping[str, Report]) -> list[dict[str, Any]]:
    return [
        {
            "code": finding.code,
            "message": finding.message,
            "modules": finding.modules,
            "source": str(finding.source),
            "line": finding.source.code if finding.source else "",
        }
        for diagnosis in found.values()
        for finding in diagnosis.findings
    ]


def counted(found: Mapping[str, Report]) -> dict[str, Any]:
    """What the report says of the gradients, by model."""
    return {
        name: {
            "states": sorted({row.state for row in diagnosis.trace.gradients if row.layer}),
            "rows": len([row for row in diagnosis.trace.gradients if row.layer]),
            "parameters": sum(info.numel for info in diagnosis.structure.parameters if info.role == "adapter"),
            "paths": sorted(row.path for row in diagnosis.trace.gradients if row.layer),
            "norms": [row.norm for row in diagnosis.trace.gradients if row.layer],
            "crashed": [(outcome.code, outcome.why) for outcome in diagnosis.outcomes if outcome.status == "crashed"],
        }
        for name, diagnosis in found.items()
    }


def result_of(name: str, fault: str) -> dict[str, Any]:
    row = ROWS[name]
    if fault == "healthy":
        bare = trained(row(""))
        torch.compiler.reset()  # what was compiled for the one is not there for the other
        training = row("")
        under_watch, found, refused, _ = watched(lambda: trained(training))
        return {"same": bare == under_watch, "findings": shown(found), "seen": counted(found), "refused": refused}
    training = row(fault)
    _, found, refused, seconds = watched(lambda: trained(training, 3))
    return {"findings": shown(found), "refused": refused, "seconds": seconds}


def wanted(arguments: list[str]) -> Iterator[tuple[str, str]]:
    for argument in arguments or NAMES:
        name, _, fault = argument.partition(":")
        yield from [(name, fault)] if fault else [(name, each) for each in ("healthy", *FAULTS[name])]


def main() -> None:
    dist.init_process_group("gloo")
    results: dict[str, Any] = {}
    for name, fault in wanted(sys.argv[1:]):
        began = time.monotonic()
        try:
            results[f"{name}:{fault}"] = result_of(name, fault)
        except Exception:
            results[f"{name}:{fault}"] = {"error": traceback.format_exc()}
        results[f"{name}:{fault}"]["took"] = time.monotonic() - began
        dist.barrier()
    if folder := os.environ.get("ROWS_OUT"):
        Path(folder, f"{dist.get_rank()}.json").write_text(json.dumps(results))
    elif dist.get_rank() == 0:
        print(json.dumps(results, indent=1))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
