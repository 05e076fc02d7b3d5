"""Inspect the models of PEFT's own test-suite, wrapped as its tests wrap them: all are sound, so that each error is to be looked at.

    python docs/scan.py path/to/peft/tests/test_custom_models.py      # a checkout of PEFT that goes with the installed one

Only the configurations and the small models are taken from the file; what the installed PEFT does not know is counted and left out.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import peft_inspect

INPUTS = {"X": torch.arange(90).view(9, 10)}  # what the tests give to every one of these models


def main(file: str) -> None:
    """Print how many configurations were inspected, and what was found in them."""
    warnings.simplefilter("ignore")
    namespace, cases = _read(Path(file))
    counts, found = Counter[str](), Counter[str]()
    for name, model_id, config_class, fields in cases:
        try:
            torch.manual_seed(0)
            model = peft.get_peft_model(namespace["MockTransformerWrapper"].from_pretrained(model_id), config_class(**fields)).train()
        except Exception:
            counts["not built by the installed PEFT"] += 1
            continue
        try:
            report = peft_inspect.check(model, INPUTS, loss=_squares, verify=False)
        except peft_inspect.InspectionError as error:
            counts["not inspected"] += 1
            print(f"{name}: {error}")
            continue
        counts["inspected"] += 1
        for finding in report.findings:
            found[f"{finding.code} {finding.severity}"] += 1
            if finding.severity == "error":
                print(f"{name}: {finding.code} {finding.message}")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    print(", ".join(f"{count} × {what}" for what, count in sorted(found.items())) or "no findings")


def _squares(model: Any, batch: Any) -> torch.Tensor:
    squares: torch.Tensor = model(**batch).float().square().mean()
    return squares


def _read(file: Path) -> tuple[dict[str, Any], list[tuple[str, str, Any, dict[str, Any]]]]:
    """The models of the file by name, and its configurations: name, model, class of the config, fields."""
    namespace: dict[str, Any] = {**vars(peft), "torch": torch, "nn": nn, "Conv1D": Conv1D, "partial": partial, "peft": peft}
    tree = ast.parse(file.read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("Test"):
            try:
                exec(compile(ast.Module([node], []), str(file), "exec"), namespace)  # a test-suite that its user names
            except NameError:
                continue
    return namespace, list(_cases(tree, namespace))


def _cases(tree: ast.Module, namespace: dict[str, Any]) -> Iterator[tuple[str, str, Any, dict[str, Any]]]:
    for node in tree.body:
        named = isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "TEST_CASES" for target in node.targets)
        if named and isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            for entry in node.value.elts:
                try:
                    name, model_id, config_class, fields, *_ = eval(compile(ast.Expression(entry), "", "eval"), namespace)
                except (NameError, AttributeError):
                    continue
                yield name, model_id, config_class, fields


if __name__ == "__main__":
    main(sys.argv[1])
