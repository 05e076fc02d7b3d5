"""Two gloo processes on the CPU, launched once for all tests that ask for the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def launch(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run in two processes, from the root of the project, and wait for both."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **environment}
    with subprocess.Popen(
        [*LAUNCH, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **own},
        start_new_session=True,
    ) as launcher:
        try:
            said, complained = launcher.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(launcher.pid, signal.SIGTERM)  # the launcher ends its workers, which no signal to itself alone would reach
            said, complained = launcher.communicate(timeout=60)
        return subprocess.CompletedProcess(launcher.args, launcher.returncode, said, complained)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[..., list[dict[str, Any]]]:
    """What each of the two processes saw of the rows named, `NAME` or `NAME:FAULT`; all workers share one launch."""

    def of(*rows: str) -> list[dict[str, Any]]:
        base = tmp_path_factory.getbasetemp()
        folder = (base if worker_id == "master" else base.parent) / f"rows-{'-'.join(rows)[:40].replace(':', '_') or 'all'}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                folder.mkdir()
                ended = launch(str(HERE / "rows.py"), *rows, ROWS_OUT=str(folder))
                (folder / "said").write_text(f"{ended.returncode}\n{ended.stdout}\n{ended.stderr}")
        files = [folder / f"{rank}.json" for rank in range(2)]
        assert all(file.exists() for file in files), (folder / "said").read_text()
        return [json.loads(file.read_text()) for file in files]

    return of
