from dataclasses import replace
from io import StringIO

import pytest

from peft_inspect.formats.numbers import share
from peft_inspect.formats.tree.drawing import write
from peft_inspect.formats.view import View
from peft_inspect.records import Carried, ConfigEntry, Coverage


def lines(report, width=80):
    out = StringIO()
    write(report, out, View("tree", width=width, color=False, targets=True))
    text = out.getvalue().splitlines()
    return text[next(at for at, line in enumerate(text) if line.startswith("targets of adapter default (LORA): ")) :]


def test_what_each_entry_reached_and_missed(make_llama, make_report):
    structure = make_llama(4)
    attention = "base_model.model.model.layers.{}.self_attn.q_proj"
    asked = (
        *structure.adapters[0].targets,
        ConfigEntry(
            "target_modules", "k_proj", (attention.format(0),), by_tower={"base_model.model.model": 1}, missed=(attention.format(3),)
        ),
        ConfigEntry("target_modules", "qproj", (), closest=("q_proj",)),
    )
    adapter = replace(structure.adapters[0], targets=asked)
    assert lines(make_report(replace(structure, adapters=(adapter,))))[1:8] == [
        "  target_modules  modules  where                    layers",
        "    q_proj              4  model LlamaDecoderLayer  0–3",
        "    v_proj              4  model LlamaDecoderLayer  0–3",
        "    k_proj              1  model LlamaDecoderLayer  0",
        "    qproj               0",
        "  k_proj misses layer 3",
        "  qproj matches nothing; the closest name is q_proj",
    ]


def test_an_entry_that_lands_in_several_sorts_of_block_has_a_row_for_each(make_llama, make_report):
    structure = make_llama(4)
    (tower,) = structure.towers
    hybrid = replace(tower, stacks=(replace(tower.stacks[0], types=("LlamaDecoderLayer", "MambaLayer") * 2),))
    found = lines(make_report(replace(structure, towers=(hybrid,))))
    assert found[2:5] == [
        "    q_proj              4",
        "                        2  model LlamaDecoderLayer  0, 2",
        "                        2  model MambaLayer         1, 3",
    ]


def test_a_long_entry_has_a_line_of_its_own(make_llama, make_report):
    structure = make_llama(4)
    target = replace(structure.adapters[0].targets[0], entry=r"model\.layers\.\d+\.self_attn\.(q|v)_proj")
    report = make_report(replace(structure, adapters=(replace(structure.adapters[0], targets=(target,)),)))
    assert lines(report)[1:4] == [
        "  target_modules  modules  where                    layers",
        r"    model\.layers\.\d+\.self_attn\.(q|v)_proj",
        "                        4  model LlamaDecoderLayer  0–3",
    ]


def test_many_indices_go_on_below_the_first(make_llama, make_report):
    structure = make_llama(40)
    every = structure.adapters[0].targets[0].matched
    matched = tuple(every[index] for index in (0, 2, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37))
    target = replace(structure.adapters[0].targets[0], matched=matched)
    report = make_report(replace(structure, adapters=(replace(structure.adapters[0], targets=(target,)),)))
    first, second, *_ = lines(report, width=70)[2:]
    column = first.index("0, 2")
    assert second[:column].isspace()
    assert second[column:].startswith(tuple("0123456789"))


def test_entries_that_differ_in_an_index_are_one_row_and_miss_nothing(make_llama, make_report):
    structure = make_llama(40)
    (target, _) = structure.adapters[0].targets
    each = tuple(
        ConfigEntry("target_modules", f"layers.{index}.self_attn.q_proj", (path,), missed=target.matched[:1])
        for index, path in enumerate(target.matched)
        if index % 3 == 0
    )
    assert lines(make_report(replace(structure, adapters=(replace(structure.adapters[0], targets=each),))))[1:4] == [
        "  target_modules  modules  where                    layers",
        "    layers.*.self_attn.q_proj",
        "                       14  model LlamaDecoderLayer  0–39 in steps of 3",
    ]


def test_what_an_adapter_costs_to_train(make_llama, make_report):
    adapter = make_llama(1).adapters[0]
    for parameters, trainable, said in ((100, 100, "100 parameters, all trainable"), (3000, 0, "3,000 parameters, 0 trainable")):
        structure = replace(make_llama(1), adapters=(replace(adapter, parameters=parameters, trainable=trainable),))
        assert lines(make_report(structure))[0] == f"targets of adapter default (LORA): {said}"


def test_an_adapter_without_targets_says_so(make_llama, make_report):
    structure = make_llama(1)
    report = make_report(replace(structure, adapters=(replace(structure.adapters[0], targets=()),)))
    assert lines(report)[1] == "  its config names no targets"


TOWER = "base_model.model.model"


def sort_of_layer(name, **ranks):
    """Four layers of 256 parameters; by adapter, the rank in the layers that carry it: `default={0: 8, 1: 8}`."""
    indices = tuple(range(4))
    layers = tuple(f"{TOWER}.layers.{index}.{name}" for index in indices)
    any_adapter = sorted({index for by_index in ranks.values() for index in by_index})
    return Coverage(
        TOWER,
        f"{TOWER}.layers",
        "LlamaDecoderLayer",
        "LlamaAttention",
        name,
        "linear",
        layers,
        tuple(layers[index] for index in any_adapter),
        indices,
        tuple(any_adapter),
        parameters=1024,
        adapted_parameters=256 * len(any_adapter),
        carried=tuple(
            Carried(adapter, len(by_index), tuple(by_index), tuple(sorted(set(by_index.values()))), 256 * len(by_index))
            for adapter, by_index in ranks.items()
        ),
    )


def test_the_other_way_round_every_sort_of_layer_and_how_many_carry_an_adapter(make_llama, make_report):
    rows = (
        sort_of_layer("self_attn.q_proj", default=dict.fromkeys(range(4), 8)),
        sort_of_layer("self_attn.v_proj", default={0: 8, 1: 16, 3: 8}),
        sort_of_layer("self_attn.o_proj"),
    )
    found = lines(make_report(replace(make_llama(4), coverage=rows)), width=100)
    at = found.index("covered: layers with 58.3% of 3,072 parameters carry an adapter")
    assert found[at + 1 : at + 6] == [
        "  layer               params  share  █ adapted   adapted     r  layers",
        "  model LlamaDecoderLayer",
        "    self_attn.q_proj   1,024  33.3%  ██████████      4/4     8  0–3",
        "    self_attn.v_proj   1,024  33.3%  ████████░░      3/4  8,16  0–1, 3",
        "    self_attn.o_proj   1,024  33.3%  ░░░░░░░░░░      0/4",
    ]


def test_all_towers_share_their_columns_and_name_their_layers_within_them(make_llama, make_report):
    projector = replace(
        sort_of_layer("model.projector.linear_1"), tower="base_model.model.model.projector", stack="", block="", indices=(), layers=("x",)
    )
    rows = (sort_of_layer("self_attn.q_proj", default={0: 8}), projector)
    found = lines(make_report(replace(make_llama(4), coverage=rows)), width=66)
    at = found.index("covered: layers with 12.5% of 2,048 parameters carry an adapter")
    assert found[at + 1 : at + 6] == [
        "  layer               params  share  adapted  r  layers",
        "  model LlamaDecoderLayer",
        "    self_attn.q_proj   1,024  50.0%      1/4  8  0",
        "  model.projector",
        "    linear_1           1,024  50.0%      0/1",
    ]


def test_each_of_several_adapters_has_a_row(make_llama, make_report):
    structure = make_llama(4)
    rows = (sort_of_layer("q_proj", default=dict.fromkeys(range(4), 8), ref={0: 4}), sort_of_layer("o_proj"))
    adapters = (structure.adapters[0], replace(structure.adapters[0], name="ref"))
    found = lines(make_report(replace(structure, coverage=rows, adapters=adapters)), width=66)
    at = found.index("covered: layers with 50.0% of 2,048 parameters carry an adapter")
    assert found[at + 1 : at + 6] == [
        "  layer     params  share  adapter  adapted  r  layers",
        "  model LlamaDecoderLayer",
        "    q_proj   1,024  50.0%  default      4/4  8  0–3",
        "                           ref          1/4  4  0",
        "    o_proj   1,024  50.0%               0/4",
    ]


def bars(make_llama, make_report, *sorts, **view):
    rows = []
    for name, parameters, adapted in sorts:
        row = sort_of_layer(name, default={0: 8})
        rows.append(replace(row, parameters=parameters, adapted_parameters=adapted))
    out = StringIO()
    report = make_report(replace(make_llama(4), coverage=tuple(rows)))
    write(report, out, View("tree", **{"width": 80, "color": False, "targets": True, **view}))
    return {line.split()[0]: line.split()[3] for line in out.getvalue().splitlines() if line.startswith("    ") and "%" in line}


def test_bars_are_as_long_as_the_part_of_the_parameters_and_filled_as_far_as_it_is_adapted(make_llama, make_report):
    sorts = (("wide", 1000, 500), ("half", 500, 500), ("tiny", 1, 0), ("nearly", 1000, 999), ("hardly", 1000, 1))
    assert bars(make_llama, make_report, *sorts) == {
        "wide": "█████░░░░░",
        "half": "█████",
        "tiny": "░",
        "nearly": "█████████░",
        "hardly": "█░░░░░░░░░",
    }
    assert bars(make_llama, make_report, *sorts, ascii=True)["wide"] == "#####....."


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 10, "0.0%"), (1, 10**6, "<0.1%"), (81, 1000, "8.1%"), (9999, 10_000, "99.9%"), (7, 7, "100.0%"), (0, 0, "0.0%")],
)
def test_a_share_is_never_rounded_to_nothing_or_to_everything(part, whole, said):
    assert share(part, whole) == said
