"""The callbacks in trainings of two processes: one verdict, as `watch` comes to it."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from conftest import launch  # noqa: E402
from test_rows import CAUSE  # noqa: E402


@pytest.mark.parametrize(
    "kind", ["trainer", pytest.param("lightning", marks=pytest.mark.skipif(find_spec("lightning") is None, reason="pip install lightning"))]
)
def test_the_callbacks_of_all_processes_come_to_one_verdict(tmp_path: Path, kind: str) -> None:
    ended = launch(str(HERE / "callbacks.py"), f"{kind}:bare", f"{kind}:healthy", f"{kind}:one", ROWS_OUT=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    for rank in range(2):
        seen: dict[str, Any] = json.loads((tmp_path / f"{rank}.json").read_text())
        bare, healthy, one = (seen[f"{kind}:{fault}"] for fault in ("bare", "healthy", "one"))
        assert (healthy["findings"], healthy["stopped"], healthy["trained"]) == ([], False, True)
        assert healthy["weights"] == bare["weights"]
        ((code, message, source),) = one["findings"]
        assert (code, source) == ("PI303", f"tests/distributed/runtimes.py:{CAUSE}")
        assert message.endswith("found on rank 1 of 2")
        assert one["stopped"]
        assert one["seconds"] < 10
