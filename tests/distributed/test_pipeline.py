"""Pipeline stages: each process has a model of another class, and all of them come to one verdict."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from conftest import launch  # noqa: E402

CAUSE = next(number for number, line in enumerate((HERE / "pipeline.py").read_text().splitlines(), 1) if line.endswith("# <- cause"))
LAYERS = ["base_model.model.down", "base_model.model.up"]


def test_stages_are_watched_each_for_itself_and_judged_together(tmp_path: Path) -> None:
    wanted = [f"{schedule}:{fault}" for schedule in ("gpipe", "1f1b") for fault in ("bare", "healthy", "everywhere", "one")]
    ended = launch(str(HERE / "pipeline.py"), *wanted, ROWS_OUT=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    for rank in range(2):
        seen: dict[str, Any] = json.loads((tmp_path / f"{rank}.json").read_text())
        for schedule in ("gpipe", "1f1b"):
            bare, healthy, everywhere, one = (seen[f"{schedule}:{fault}"] for fault in ("bare", "healthy", "everywhere", "one"))
            assert (healthy["findings"], healthy["refused"]) == ([], "")
            assert healthy["trained"] == bare["trained"]
            assert [(code, sorted(modules), source) for code, _, modules, source in everywhere["findings"]] == [
                ("PI303", LAYERS, f"tests/distributed/pipeline.py:{CAUSE}")
            ]
            ((code, message, modules, source),) = one["findings"]
            assert (code, sorted(modules), source) == ("PI303", LAYERS, f"tests/distributed/pipeline.py:{CAUSE}")
            assert "found on rank 1 of 2" in message
            assert everywhere["trained"] is one["trained"] is None
            assert max(everywhere["seconds"], one["seconds"]) < 10
