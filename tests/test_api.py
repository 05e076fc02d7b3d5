"""The Python API as it is held in hands: in a script, at a prompt, in a notebook."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model

import peft_inspect
from peft_inspect.rules.examples import text_batch, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def model():
    return get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))


@pytest.fixture(scope="module")
def report(model):
    return peft_inspect.check(model, text_batch())


def test_at_a_prompt_a_report_is_one_line_with_the_answer(report):
    assert re.fullmatch(r"<Report of \w+: all \d+ adapter parameters train.*>", repr(report))


def test_a_report_is_a_page_that_needs_no_network(report):
    page = report.html()
    assert page.startswith("<!doctype html>")
    assert not re.search(r"(src|href)=[\"']https?:", page)


def test_a_notebook_shows_the_text_and_keeps_the_page_in_a_sandbox(report):
    cell = report._repr_html_()
    assert cell.startswith("<pre")
    assert "adapter parameters train" in cell
    assert 'sandbox="allow-scripts"' in cell
    assert "<script" not in cell  # the page is quoted within the frame, and runs nowhere else


def test_a_tree_takes_what_the_command_takes(model):
    tree = peft_inspect.tree(model, depth=1, columns=("params", "dtype"))
    assert "fp32" in str(peft_inspect.tree(model, columns=("dtype",), match="*lm_head"))
    assert len(str(tree).splitlines()) < len(str(peft_inspect.tree(model)).splitlines())
    assert tree._repr_html_().startswith("<pre")


def test_errors_speak_python(model):
    with pytest.raises(peft_inspect.InspectionError, match=r"there is no column 'colour': columns takes any of params, memory"):
        peft_inspect.tree(model, columns=("colour",))
    with pytest.raises(peft_inspect.InspectionError, match=r"a str cannot be inspected: pass the torch.nn.Module"):
        peft_inspect.tree("meta-llama/Llama-3.1-8B")


def test_an_optimizer_that_is_handed_over_is_held_to_its_learning_rate(model):
    """Nothing is stepped: that no step can change anything is seen all the same; a schedule that begins at 0 is no fault."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
    found = peft_inspect.check(model, text_batch(), optimizer=optimizer, verify=False)
    assert [finding.code for finding in found.findings] == ["PI502"]
    assert "its learning rate is 0" in repr(found)
    optimizer.param_groups[0]["initial_lr"] = 0.1
    assert peft_inspect.check(model, text_batch(), optimizer=optimizer, verify=False).findings == ()


def test_a_tree_measures_what_modules_hand_on_and_what_that_costs(model):
    """Eight tokens, width 16, rank 8: a base layer of 8·16·16, factors of 8·16·8 each; what is inside a module counts for it too."""
    text = str(peft_inspect.tree(model, columns=("output", "macs"), batch=text_batch()))
    q, k = (next(line.split() for line in text.splitlines() if name in line) for name in ("q_proj", "k_proj"))
    assert (q[-2:], k[-2:]) == (["1×8×16", "4,096"], ["1×8×16", "2,048"])
    attention = 4_096 + 3 * 2_048 + 2 * 8 * 8 * 16  # four projections, the scores and their product with the values
    mlp = 3 * 8 * 16 * 32
    (layers,) = (line.split() for line in text.splitlines() if "layers.0–1" in line)
    assert layers[-1] == f"{2 * (attention + mlp) / 1000:.1f}K"
    assert "macs" not in str(peft_inspect.tree(model))
