"""Reads of raw weights that FSDP gathers into other memory for each forward."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from conftest import launch  # noqa: E402

CAUSE = next(number for number, line in enumerate((HERE / "bypass.py").read_text().splitlines(), 1) if line.endswith("# <- cause"))


def test_a_read_of_a_sharded_weight_outside_its_adapter_layer_is_found_at_its_line(tmp_path: Path) -> None:
    ended = launch(str(HERE / "bypass.py"), ROWS_OUT=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    for rank in range(2):
        seen = json.loads((tmp_path / f"{rank}.json").read_text())
        for way in ("blocks", "whole", "half"):
            assert seen[way]["healthy"]["findings"] == [], way
            assert seen[way]["healthy"]["trained"] == seen[way]["bare"]["trained"], way
            ((code, modules, source),) = seen[way]["reads"]["findings"]
            assert (code, source) == ("PI201", f"tests/distributed/bypass.py:{CAUSE}"), way
            assert sorted(modules) == ["base_model.model.0.down", "base_model.model.1.down"], way
