"""The line that left a state before the step: seen where the tool ran the user's code, read where one line alone writes it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
import torch

import peft_inspect
from peft_inspect.inspection import inspect
from peft_inspect.records import Request

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")

PROGRAM = """
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model, inject_adapter_in_model
from peft_inspect.rules.examples import text_batch, tiny_llama


def scale():
    config = LoraConfig(
        r=4,
        lora_alpha=0,  # PI311
        target_modules=["q_proj"],
    )
    return get_peft_model(tiny_llama(), config)


def in_one_line():
    return get_peft_model(tiny_llama(), LoraConfig(lora_alpha=0, target_modules=["q_proj"]))  # PI311


NAMES = ["q_proj",
         "v_prj"]  # PI101


def misspelt():
    return get_peft_model(tiny_llama(), LoraConfig(target_modules=NAMES))


def for_inference():
    fields = {"target_modules": ["q_proj"]}
    fields["inference_mode"] = True  # PI301
    return get_peft_model(tiny_llama(), LoraConfig(**fields))


def frozen():
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    freeze(model)
    return model


def freeze(model):
    for parameter in model.parameters():
        parameter.requires_grad = False  # PI302


def under_prompts():
    base = inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), tiny_llama())
    return get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))  # PI302


def unfrozen():
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    model.base_model.model.lm_head.requires_grad_(True)  # PI316
    return model


def taken_off():
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    return model.unload()  # PI112


def twice():
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    return get_peft_model(model, LoraConfig(target_modules=["v_proj"]))  # PI116


def disabled():
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    model.disable_adapter_layers()  # PI205
    return model


def plain():
    return get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))


def half_an_optimizer(model):
    return torch.optim.SGD([p for n, p in model.named_parameters() if "lora_A" in n], lr=0.1)  # PI317


class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x).square().mean()


class Cached(torch.nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.tower, self.head, self.seen = tower, torch.nn.Linear(64, 2), {}

    def features(self, ids):
        if "all" not in self.seen:
            with torch.no_grad():  # PI204
                self.seen["all"] = self.tower(input_ids=ids).logits.mean(1)
        return self.seen["all"]

    def forward(self, input_ids, labels=None):
        return self.head(self.features(input_ids)).square().mean()


def cached():
    model = Cached(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])))
    model.features(text_batch()["input_ids"])
    return model


def own():
    return get_peft_model(Own(), LoraConfig(
        target_modules=["inner"], layers_to_transform=None,
        modules_to_save=["inner_most"]))  # PI110
"""
FAULTS = [
    ("scale", "PI311"),
    ("in_one_line", "PI311"),
    ("misspelt", "PI101"),
    ("for_inference", "PI301"),
    ("frozen", "PI302"),
    ("under_prompts", "PI302"),
    ("unfrozen", "PI316"),
    ("taken_off", "PI112"),
    ("twice", "PI116"),
    ("disabled", "PI205"),
    ("plain", "PI317"),
    ("own", "PI110"),
    ("cached", "PI204"),
]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "made.py"
    file.write_text(PROGRAM)
    return file


def marked(name: str, code: str) -> set[int]:
    """The lines that are marked with the code, from the function on."""
    lines = PROGRAM.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(f"def {name}")), 0)
    return {number for number, line in enumerate(lines, 1) if line.endswith(f"# {code}") and (code != "PI302" or number > start)}


@pytest.mark.parametrize(("name", "code"), FAULTS)
def test_what_the_users_code_did_is_shown_at_its_line(program: Path, name: str, code: str) -> None:
    optimizer = f"{program}:half_an_optimizer" if code == "PI317" else None
    batch = None if name == "own" else "peft_inspect.rules.examples:text_batch"
    report = inspect(Request(model=f"{program}:{name}", batch=batch, optimizer=optimizer), select=[code], verify=False)
    (found,) = report.findings
    assert found.source is not None
    assert found.source.file.endswith("made.py")
    assert found.source.line in marked(name, code)


def test_a_model_that_was_there_already_is_read_from_the_files_it_comes_from(program: Path) -> None:
    spec = importlib.util.spec_from_file_location("made", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (found,) = peft_inspect.check(module.own(), {"x": torch.randn(2, 4)}, select=["PI110"]).findings
    assert found.source is not None
    assert found.source.line in marked("own", "PI110")
    (other,) = peft_inspect.check(module.scale(), select=["PI311"]).findings
    assert other.source is None, "none of its modules is the user's: no file is known"


def test_what_a_step_was_clipped_to_is_shown_at_the_line_that_clips() -> None:
    from peft import LoraConfig, get_peft_model

    from peft_inspect.rules.examples import text_batch, tiny_llama

    with peft_inspect.watch(fail_on="never") as watched:
        model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model(**text_batch()).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.0)
        optimizer.step()
    assert watched.report is not None
    (found,) = watched.report.findings
    assert found.code == "PI502"
    assert found.source is not None
    assert "clip_grad_norm_" in found.source.code
