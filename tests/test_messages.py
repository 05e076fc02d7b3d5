"""What people saw before they came here leads to the rules that tell the causes apart."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from peft_inspect.rules import all_rules
from peft_inspect.rules.messages import MESSAGES, matching

ZH = Path(__file__).parent.parent / "docs" / "zh" / "messages.md"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("None of the inputs have requires_grad=True", "PI304"),
        ("UserWarning: None of the inputs have requires_grad=True. Gradients will be None\n  warnings.warn(", "PI304"),
        ("RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn", "PI301"),
        ("ValueError: Target modules {'query_proj'} not found in the base model.", "PI101"),
        ("trainable params: 0 || all params: 6,738,415,616 || trainable%: 0.0", "PI302"),
        ("loss does not decrease", "PI303"),
        ("my adapter has no effect after loading", "PI401"),
    ],
)
def test_a_quoted_message_leads_to_its_rules(asked, code):
    assert code in matching(asked)[0].rules


@pytest.mark.parametrize("asked", ["PI304", "no-grad-region", "PI3", "the", "hello world"])
def test_what_is_no_message_is_none(asked):
    assert not matching(asked)


def test_every_message_names_rules_that_exist():
    codes = {rule.code for rule in all_rules()}
    assert not {code for message in MESSAGES for code in message.rules} - codes


def test_the_texts_of_libraries_are_theirs():
    """Where a library rewords a message, people search for the new words. Asked of torch, where the texts are whole in one file."""
    import torch

    root = Path(torch.__file__).parent
    assert "None of the inputs have requires_grad=True. Gradients will be None" in (root / "utils" / "checkpoint.py").read_text()
    assert "optimizer got an empty parameter list" in (root / "optim" / "optimizer.py").read_text()
    assert "No inf checks were recorded for this optimizer" in (root / "amp" / "grad_scaler.py").read_text()


def test_the_chinese_page_has_every_message_with_the_same_rules():
    page = ZH.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    assert [re.sub(r"\\([*<>\[\]|])", r"\1", heading) for heading in sections] == [message.text for message in MESSAGES]
    for message, text in zip(MESSAGES, sections.values(), strict=True):
        assert re.findall(r"PI\d{3}", text) == list(message.rules)


def test_explain_finds_a_rule_by_its_message():
    told = subprocess.run(
        [sys.executable, "-m", "peft_inspect", "explain", "None of the inputs have requires_grad=True"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "PI304 reentrant-checkpoint-without-grad-input" in told.stdout
