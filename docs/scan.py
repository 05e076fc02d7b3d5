"""Inspect the small models of other people's tests, wrapped as usual: all are sound, so that each error is to be looked at.

    python docs/scan.py path/to/peft/tests/test_custom_models.py      # a checkout of PEFT that goes with the installed one
    python docs/scan.py path/to/diffusers/tests/models                # of diffusers
    python docs/scan.py transformers 10                               # every tenth type that is installed, made small

Only configurations, small models and their inputs are taken from the files; what the installed library does not know is counted and
left out. A class of tests is taken for its functions alone, without what it derives from.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import peft_inspect
from peft_inspect.inspection import inspect
from peft_inspect.records import Request

INPUTS = {"X": torch.arange(90).view(9, 10)}  # what PEFT's tests give to every one of these models
Scanned = tuple[str, Callable[[], Callable[[], peft_inspect.Report]]]  # a name, and what builds the model and then inspects it


def main(given: str, every: str = "1") -> None:
    """Print how many models were inspected, and what was found in them."""
    warnings.simplefilter("ignore")
    scanned = _types(int(every)) if given == "transformers" else _diffusers(Path(given)) if Path(given).is_dir() else _peft(Path(given))
    counts, found = Counter[str](), Counter[str]()
    for name, build in scanned:
        try:
            run = build()
        except Exception:
            counts["not built by what is installed"] += 1
            continue
        try:
            report = run()
        except peft_inspect.InspectionError as error:
            counts["not inspected"] += 1
            print(f"{name}: {str(error)[:200]}")
            continue
        counts["inspected"] += 1
        for finding in report.findings:
            found[f"{finding.code} {finding.severity}"] += 1
            if finding.severity == "error":
                print(f"{name}: {finding.code} {finding.message[:300]}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    print(", ".join(f"{count} × {what}" for what, count in sorted(found.items())) or "no findings")


def _peft(file: Path) -> Iterator[Scanned]:
    namespace, cases = _read(file)

    def build(model_id: str, config_class: Any, fields: dict[str, Any]) -> Callable[[], peft_inspect.Report]:
        torch.manual_seed(0)
        model = peft.get_peft_model(namespace["MockTransformerWrapper"].from_pretrained(model_id), config_class(**fields)).train()
        return lambda: peft_inspect.check(model, INPUTS, loss=_squares, verify=False)

    return ((name, partial(build, model_id, config_class, fields)) for name, model_id, config_class, fields in cases)


def _types(every: int) -> Iterator[Scanned]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    def run(name: str) -> peft_inspect.Report:
        request = Request(model=f"arch:{name}", lora_fields={"target_modules": "all-linear"}, weights="random", reduce=True)
        return inspect(request, verify=False)

    return ((name, partial(partial, run, name)) for name in list(CONFIG_MAPPING_NAMES)[::every])


def _diffusers(folder: Path) -> Iterator[Scanned]:
    """Classes of tests that say how a model is made and what goes into it."""
    import diffusers
    from diffusers.utils.torch_utils import randn_tensor

    names = {"torch": torch, "nn": nn, "randn_tensor": randn_tensor, "torch_device": "cpu", "Any": Any}
    names |= {"floats_tensor": lambda shape, **_: torch.rand(shape)}

    def build(definition: ast.ClassDef, file: Path) -> Callable[[], peft_inspect.Report]:
        functions = [node for node in definition.body if isinstance(node, (ast.FunctionDef, ast.Assign))]
        plain = ast.ClassDef(definition.name, [], [], functions, [], **({"type_params": []} if sys.version_info >= (3, 12) else {}))
        used = {node.id for node in ast.walk(plain) if isinstance(node, ast.Name)}
        namespace = {**names, **{name: getattr(diffusers, name) for name in used if name not in names and hasattr(diffusers, name)}}
        exec(compile(ast.fix_missing_locations(ast.Module([plain], [])), str(file), "exec"), namespace)  # tests that the user names
        case = type("Case", (namespace[definition.name],), {"torch_dtype": torch.float32})()
        torch.manual_seed(0)
        model = case.model_class(**case.get_init_dict()).train()
        model.add_adapter(peft.LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
        inputs = case.get_dummy_inputs()
        return lambda: peft_inspect.check(model, inputs, loss=lambda model, batch: _square(model(**batch)[0]), verify=False)

    for file in sorted(folder.rglob("test_*.py")):
        for node in ast.parse(file.read_text()).body:
            own = {part.name for part in node.body if isinstance(part, ast.FunctionDef)} if isinstance(node, ast.ClassDef) else set()
            if isinstance(node, ast.ClassDef) and {"get_init_dict", "get_dummy_inputs"} <= own:
                yield f"{file.stem} {node.name}", partial(build, node, file)


def _squares(model: Any, batch: Any) -> torch.Tensor:
    return _square(model(**batch))


def _square(output: Any) -> torch.Tensor:
    squares: torch.Tensor = output.float().square().mean()
    return squares


def _read(file: Path) -> tuple[dict[str, Any], list[tuple[str, str, Any, dict[str, Any]]]]:
    """The models of the file by name, and its configurations: name, model, class of the config, fields."""
    namespace: dict[str, Any] = {
        **vars(peft),
        "__name__": "tests",
        "torch": torch,
        "nn": nn,
        "Conv1D": Conv1D,
        "partial": partial,
        "peft": peft,
    }
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
    main(*sys.argv[1:])
