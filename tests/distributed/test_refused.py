"""An inspection by one process of several runs no pass, and says what to call instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_an_inspection_by_one_process_of_several_is_refused_and_disturbs_nothing() -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(Path(__file__).parent / "refused.py"),
    ]
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    )
    assert ended.returncode == 0, ended.stderr
    for way in ("ddp", "static-graph", "fsdp2"):
        said = [line for line in ended.stdout.splitlines() if line.startswith(f"{way}: ")]
        assert len(said) == 2, ended.stdout
        assert all("not inspected: this process is rank 0 of 2" in line and "-m peft_inspect run" in line for line in said)
