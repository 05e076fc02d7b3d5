from dataclasses import replace
from io import StringIO

from peft_inspect.formats.tree import write
from peft_inspect.formats.view import View
from peft_inspect.records import Coverage, Target


def lines(report, width=80):
    out = StringIO()
    write(report, out, View("tree", width=width, color=False, targets=True))
    text = out.getvalue().splitlines()
    return text[text.index("targets of adapter default (LORA)") :]


def test_what_each_entry_reached_and_missed(make_llama, make_report):
    structure = make_llama(4)
    attention = "base_model.model.model.layers.{}.self_attn.q_proj"
    asked = (
        *structure.adapters[0].targets,
        Target("target_modules", "k_proj", (attention.format(0),), by_tower={"base_model.model.model": 1}, missed=(attention.format(3),)),
        Target("target_modules", "qproj", (), closest=("q_proj",)),
    )
    adapter = replace(structure.adapters[0], targets=asked)
    assert lines(make_report(replace(structure, adapters=(adapter,))))[1:8] == [
        "  field           entry   modules  layers  towers",
        "  target_modules  q_proj        4  0–3     model 4",
        "  target_modules  v_proj        4  0–3     model 4",
        "  target_modules  k_proj        1  0       model 1",
        "  target_modules  qproj         0",
        "  k_proj misses layers 3",
        "  qproj matches nothing; the closest names are q_proj",
    ]


def test_a_long_cell_goes_on_below_itself(make_llama, make_report):
    structure = make_llama(4)
    target = replace(structure.adapters[0].targets[0], by_tower={f"tower_number_{number}": 1 for number in range(5)})
    report = make_report(replace(structure, adapters=(replace(structure.adapters[0], targets=(target,)),)))
    found = lines(report, width=70)
    assert found[2].startswith("  target_modules  q_proj        4  0–3     tower_number_0 1,")
    assert found[3].startswith("                                           tower_number_")


def test_an_adapter_without_targets_says_so(make_llama, make_report):
    structure = make_llama(1)
    report = make_report(replace(structure, adapters=(replace(structure.adapters[0], targets=()),)))
    assert lines(report)[1] == "  its config names no targets"


def test_the_other_way_round_every_sort_of_layer_and_how_many_carry_an_adapter(make_llama, make_report):
    structure = make_llama(4)
    tower = "base_model.model.model"

    def coverage(name, adapted):
        layers = tuple(f"{tower}.layers.{index}.{name}" for index in range(4))
        indices = tuple(range(4))
        sizes = {"parameters": 1024, "adapted_parameters": 256 * len(adapted)}
        return Coverage(
            tower,
            f"{tower}.layers",
            "LlamaDecoderLayer",
            "LlamaAttention",
            name,
            "linear",
            layers,
            layers[: len(adapted)],
            indices,
            adapted,
            **sizes,
        )

    rows = (coverage("self_attn.q_proj", (0, 1, 2, 3)), coverage("self_attn.v_proj", (0, 1)), coverage("self_attn.o_proj", ()))
    found = lines(make_report(replace(structure, coverage=rows)), width=100)
    at = found.index("covered: layers with 50% of 3,072 parameters carry an adapter")
    assert found[at + 1 : at + 6] == [
        "  model LlamaDecoderLayer",
        "    layer             adapted  params  at layers",
        "    self_attn.q_proj      4/4   1,024  0–3",
        "    self_attn.v_proj      2/4   1,024  0–1",
        "    self_attn.o_proj      0/4   1,024",
    ]
