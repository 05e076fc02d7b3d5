"""Rows of the tree where there is little room: nothing that is said is cut away."""

from dataclasses import replace
from io import StringIO

import pytest

from peft_inspect.formats.markdown import write as write_markdown
from peft_inspect.formats.tree.drawing import write
from peft_inspect.formats.view import View
from peft_inspect.records import ModuleInfo


def screen(report, **view):
    out = StringIO()
    write(report, out, View("tree", **{"color": False, **view}))
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_sixty_levels_keep_their_names_and_their_numbers(make_llama, make_report, width):
    """What does not fit of the guides is counted: `24… │ ├ inner`."""
    structure = make_llama(1)
    deep = tuple(ModuleInfo("inner" + ".inner" * level, f"Nested{level}", "other", training=True) for level in range(60))
    lines = screen(make_report(replace(structure, modules=(*structure.modules, *deep))), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(any(f"Nested{level}" in line for line in lines) for level in range(60))
    assert any("… " in line and "inner" in line for line in lines)


def test_a_long_change_goes_on_below_without_losing_a_word(make_llama, make_report):
    other = make_report(make_llama(2, ranks=lambda index: 128))
    text = screen(make_report(make_llama(2)), other=other, width=60)
    told = " ".join(line.strip("│├└ ").removesuffix("256").removesuffix("512").strip() for line in text.splitlines())
    assert "now r 128 instead of 8, lora_alpha 256 instead of 16" in " ".join(told.split())
    assert "…" not in text


def test_nothing_is_left_out_where_that_saves_no_line(make_llama, make_report):
    other = make_report(make_llama(1, ranks=lambda index: 128))
    assert "~ q_proj Linear 16×16 ◆ default r=8 α=16 fp32" in screen(make_report(make_llama(1)), other=other, width=80)


def test_the_signs_of_a_difference_are_explained(make_llama, make_report):
    assert "\n+ added  - removed  ~ changed\n" in screen(make_report(make_llama(1)), other=make_report(make_llama(1)), width=80)
    assert "+ added" not in screen(make_report(make_llama(1)), width=80)


def test_the_signs_are_explained_in_markdown_as_well(make_llama, make_report):
    out = StringIO()
    write_markdown(make_report(make_llama(1)), out, View("tree", other=make_report(make_llama(2))))
    assert (
        "+ added  - removed  ~ changed\n◆ trains  ◇ does not train  ✗ ! · error, warning, note  ×N: sum of N, one shown\n```"
        in out.getvalue()
    )


def test_names_that_are_spelled_out_keep_the_columns_in_line(make_llama, make_report):
    structure = make_llama(1)
    wide = ModuleInfo("base_model.model.名前", "Dropout", "other", training=True)
    text = screen(make_report(replace(structure, modules=(*structure.modules, wide))), width=140, ascii=True, columns=("path",))
    starts = [line.rindex("base_model.model") for line in text.splitlines() if line.endswith(("q_proj", "\\u540d\\u524d"))]
    assert len(starts) == 2
    assert len(set(starts)) == 1
    assert text.isascii()
