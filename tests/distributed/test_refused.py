"""An inspection by one process of several runs no pass, and says what to call instead."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from conftest import launch  # noqa: E402


def test_an_inspection_by_one_process_of_several_is_refused_and_disturbs_nothing() -> None:
    ended = launch(str(HERE / "refused.py"))
    assert ended.returncode == 0, ended.stderr
    for way in ("ddp", "static-graph", "fsdp2"):
        said = [line for line in ended.stdout.splitlines() if line.startswith(f"{way}: ")]
        assert len(said) == 2, ended.stdout
        assert all("not inspected: this process is rank 0 of 2" in line and "-m peft_inspect run" in line for line in said)
