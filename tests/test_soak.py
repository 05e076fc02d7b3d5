"""A few seconds of interrupts at random moments; `python -m tests.soak 600` tries for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_interrupts_at_random_moments_leave_everything_as_it_was() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.soak", "6", "20"]
    ran = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert all(ending in ran.stdout for ending in ("KeyboardInterrupt", "Alarm", "Late")), "each way must have hit an inspection"
