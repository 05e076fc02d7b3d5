"""SVG, Markdown and the gradient map."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from io import StringIO

import pytest

from peft_inspect.formats import markdown, svg
from peft_inspect.formats.gradient_map import gradient_map
from peft_inspect.formats.heatmap import map_lines
from peft_inspect.formats.view import View
from peft_inspect.records import Carried, Coverage


def drawn(trace, width=80, **options):
    return [line.plain for line in map_lines(gradient_map(trace), width, **options)]


def with_states(trace, states):
    """`states`: part of a parameter path → (state, norm)."""

    def changed(gradient):
        for part, (state, norm) in states.items():
            if part in gradient.path:
                return replace(gradient, state=state, norm=norm)
        return gradient

    return replace(trace, gradients=tuple(changed(gradient) for gradient in trace.gradients))


def test_every_state_has_a_sign_of_its_own(make_llama, make_trace):
    structure = make_llama(8)
    trace = make_trace(structure, norm=0.5)
    trace = with_states(
        trace,
        {
            ".0.self_attn.q_proj": ("none", None),
            ".1.self_attn.q_proj": ("frozen", None),
            ".2.self_attn.q_proj": ("zero", 0.0),
            ".3.self_attn.q_proj": ("nonfinite", None),
            ".4.self_attn.q_proj.lora_A": ("none", None),
            ".5.self_attn.q_proj": ("none", None),
            ".6.self_attn.q_proj.lora_A": ("zero-at-init", 0.0),
            ".7.self_attn.q_proj": ("ok", 5e-5),
        },
    )
    trace = replace(trace, calls=tuple(call for call in trace.calls if ".5.self_attn.q_proj" not in call.path))
    assert drawn(trace) == [
        "base_model.model.model.layers",
        "                   0",
        "  self_attn.q_proj ✗f0N~·█▁",
        "  self_attn.v_proj ████████",
        (
            "gradient norm ▁ 7.1e-05 to █ 7.1e-01, log scale   N NaN or infinite   ✗ no gradient   f frozen   "
            "· not run   0 zero   ~ some without gradient"
        ),
    ]


def test_a_weightless_run_shows_connection(make_llama, make_trace):
    structure = make_llama(3)
    lines = drawn(make_trace(structure, norm=None))
    assert lines[2] == "  self_attn.q_proj ■■■"
    assert lines[-1] == "■ connected to the loss"


def test_a_narrow_screen_bins_and_says_so_and_hides_no_dead_layer(make_llama, make_trace):
    structure = make_llama(80)
    trace = with_states(make_trace(structure), {".33.self_attn.q_proj": ("none", None)})
    lines = drawn(trace, width=60)
    assert "a cell is 2 layers, the worst of them" in lines[0]
    assert lines[2].count("✗") == 1
    assert max(map(len, lines[1:-1])) <= 60


def test_a_kind_that_some_blocks_lack_leaves_a_gap(make_llama, make_trace):
    structure = make_llama(4)
    rows = tuple(layer for layer in structure.adapter_layers if ".2.self_attn.v_proj" not in layer.path)
    lines = drawn(make_trace(replace(structure, adapter_layers=rows), norm=None))
    assert lines[3] == "  self_attn.v_proj ■■ ■"


def test_two_adapters_have_rows_of_their_own(make_llama, make_trace):
    structure = make_llama(2)
    rows = structure.adapter_layers
    second = tuple(replace(layer, adapter="other") for layer in rows)
    lines = drawn(make_trace(replace(structure, adapter_layers=rows + second), norm=None))
    assert "  self_attn.q_proj [default] ■■" in lines
    assert "  self_attn.q_proj [other]   ■■" in lines


def test_the_map_in_seven_bits(make_llama, make_trace):
    assert all(line.isascii() for line in drawn(make_trace(make_llama(3)), ascii_only=True))


@pytest.mark.parametrize("command", ["tree", "gradcheck"])
def test_the_picture_is_an_svg_that_fetches_nothing(broken_report, command):
    out = StringIO()
    svg.write(broken_report, out, View(command))
    text = out.getvalue()
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "url(" not in text
    assert "<script" not in text
    words = " ".join("".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "PI304" in words
    assert "q_proj" in words


def test_hostile_names_in_a_picture_are_text(broken_report):
    out = StringIO()
    svg.write(replace(broken_report, source='"><script>x</script>\x00\x1b[0m'), out, View("gradcheck"))
    root = ET.fromstring(out.getvalue())
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))


def test_markdown_for_a_pull_request(broken_report):
    out = StringIO()
    markdown.write(broken_report, out, View("check"))
    text = out.getvalue()
    assert text.startswith("## peft-inspect: 1 error\n")
    assert "**LoRA params with gradients: 0/16**  \nLoRA params without gradients: 16/16 (16 no gradient)  \n" in text
    assert "`train.py:54` in `forward`" in text
    assert "- `base_model.model.model.layers.0–3.self_attn.{q_proj,v_proj}`" in text
    assert "(verified: 16/16 parameters train with use\\_reentrant=False)" in text
    assert "  self_attn.q_proj ✗✗✗✗" in text
    assert "| target\\_modules | q\\_proj | 4 | model LlamaDecoderLayer | 0–3 |" in text


def test_markdown_of_the_tree(make_llama, make_report):
    out = StringIO()
    markdown.write(make_report(make_llama()), out, View("tree"))
    assert "layers.0–3 ×4 LlamaDecoderLayer" in out.getvalue()


def test_hostile_names_in_markdown_neither_ping_nor_break_out(broken_report):
    hostile = "``` @octocat <b>|x|</b> [a](b)\n# head"
    finding = replace(broken_report.findings[0], message=hostile, modules=("a`b```c",))
    out = StringIO()
    markdown.write(replace(broken_report, source=hostile, findings=(finding,)), out, View("check"))
    assert "<b>" not in [line for line in out.getvalue().splitlines() if "octocat" in line][-1]
    assert "&#64;octocat" in out.getvalue()
    assert "\n# head" not in out.getvalue().replace("```diff\n# head\n```", "")  # a further line is a difference, in a fence
    assert "````a`b```c````" in out.getvalue()


def test_markdown_tells_what_is_covered_in_a_fold_of_its_own(make_llama, make_report):
    tower = "base_model.model.model"
    layers = tuple(f"{tower}.layers.{index}.q_proj" for index in range(4))
    place = (tower, f"{tower}.layers", "LlamaDecoderLayer", "LlamaAttention", "q_proj", "linear")
    row = Coverage(*place, layers, layers, (0, 1, 2, 3), (0, 1, 2, 3), 10**9, 10**9, (Carried("default", 4, (0, 1, 2, 3), (8,), 10**9),))
    text = write_markdown(make_report(replace(make_llama(4), coverage=(row,))))
    assert "<details><summary>Coverage: layers with 100.0% of 1.00B parameters carry an adapter</summary>\n\n```text\n" in text
    assert "    q_proj   1.00B  100.0%  ██████████      4/4  8  0–3\n" in text


def write_markdown(report):
    out = StringIO()
    markdown.write(report, out, View("check"))
    return out.getvalue()
