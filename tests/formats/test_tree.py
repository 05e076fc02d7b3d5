"""Whole screens from hand-made records."""

import time
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from peft_inspect.formats.tree.drawing import ModelTree, write
from peft_inspect.formats.tree.nodes import build
from peft_inspect.formats.view import View
from peft_inspect.records import ModuleInfo, Source, WeightRead


def screen(report, **view):
    out = StringIO()
    write(report, out, View("tree", **{"width": 80, "color": False, **view}))
    return out.getvalue()


def test_equal_blocks_are_one_line_and_every_wrapper_is_shown(make_llama, make_report):
    """The whole screen at 80 columns."""
    assert (
        screen(make_report(make_llama()))
        == """\
train.py:build_model
PeftModelForCausalLM → LoraModel → LlamaForCausalLM
(root) → base_model → base_model.model
parameters 13,456, trainable 2,048 (15.22 %), your weights, train mode

                                                         params  trainable
PeftModelForCausalLM                                      13.5K      2,048
└ base_model LoraModel                                    13.5K      2,048
  └ model LlamaForCausalLM                                13.5K      2,048
    ├ model LlamaModel (tower)                            13.5K      2,048
    │ ├ embed_tokens Embedding 64×16                      1,024
    │ ├ layers.0–3 ×4 LlamaDecoderLayer each 3,104        12.4K      2,048
    │ │ ├ self_attn LlamaAttention                        1,536        512
    │ │ │ ├ q_proj Linear 16×16 ◆ default r=8 α=16 fp32     512        256
    │ │ │ ├ k_proj Linear 16×16                             256
    │ │ │ ├ v_proj Linear 16×16 ◆ default r=8 α=16 fp32     512        256
    │ │ │ └ o_proj Linear 16×16                             256
    │ │ ├ mlp LlamaMLP                                    1,536
    │ │ │ ├ gate_proj Linear 32×16                          512
    │ │ │ ├ up_proj Linear 32×16                            512
    │ │ │ ├ down_proj Linear 16×32                          512
    │ │ │ └ act_fn SiLU
    │ │ ├ input_layernorm LlamaRMSNorm 16                    16
    │ │ └ post_attention_layernorm LlamaRMSNorm 16           16
    │ └ norm LlamaRMSNorm 16                                 16
    └ lm_head Linear tied to embed_tokens.weight
◆ trains  ◇ does not train  ✗ ! · error, warning, note  ×N: sum of N, one shown
adapter weights 8.00 KiB, gradients 8.00 KiB, AdamW states 16.0 KiB
no findings from 1 rules
structure only: gradients were not checked (peft-inspect gradcheck does)
"""
    )


def test_a_block_that_differs_stands_apart_and_says_in_what(make_llama, make_report):
    text = screen(make_report(make_llama(5, ranks=lambda index: 16 if index == 2 else 8)), width=120)
    assert "layers.0–1,3–4 ×4 LlamaDecoderLayer" in text
    assert "layers.2 LlamaDecoderLayer" in text
    assert "unlike 0–1,3–4: self_attn.{q_proj,v_proj}: r 16 instead of 8, lora_alpha 32 instead of 16" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"merged": True}, "merged"),
        ({"active": False}, "inactive"),
        ({"enabled": False}, "disabled"),
        ({"lora_alpha": 4.0}, "lora_alpha 4.0 instead of 16"),
        ({"dtype": "bfloat16"}, "dtype bfloat16 instead of float32"),
        ({"details": {"use_dora": True}}, "use_dora True instead of None"),
    ],
)
def test_no_state_of_an_adapter_is_folded_away(make_llama, make_report, change, said):
    structure = make_llama(3)
    odd = next(layer for layer in structure.adapter_layers if ".1." in layer.path)
    rows = tuple(replace(layer, **change) if layer is odd else layer for layer in structure.adapter_layers)
    text = screen(make_report(replace(structure, adapter_layers=rows)), width=160)
    assert "layers.0,2 ×2" in text
    assert f"unlike 0,2: self_attn.q_proj: {said}" in text


def test_totals_equal_the_sum_over_the_parameters(make_llama, make_report):
    structure = make_llama(7)
    root = ModelTree(make_report(structure)).root
    assert root.total == sum(parameter.numel for parameter in structure.parameters)
    assert root.trainable == sum(parameter.numel for parameter in structure.parameters if parameter.requires_grad)


def test_a_70b_model_fits_on_one_screen_in_no_time(make_llama, make_report):
    report = make_report(make_llama(80, targets=("q_proj", "k_proj", "v_proj", "o_proj")))
    started = time.process_time()
    text = screen(report)
    assert time.process_time() - started < 1  # 0.2 s on a free machine
    assert len(text.splitlines()) <= 45


@pytest.mark.parametrize("width", [80, 200])
def test_no_line_is_wider_than_the_screen(make_llama, make_report, reentrant, width):
    report = make_report(make_llama(), findings=[reentrant])
    assert max(map(len, screen(report, width=width).splitlines())) <= width


def test_findings_are_flagged_where_they_are(make_llama, make_report, reentrant):
    text = screen(make_report(make_llama(), findings=[reentrant]), width=120)
    assert "q_proj Linear 16×16 ◆ default r=8 α=16 fp32 ✗ PI304" in text
    assert "error PI304 reentrant-checkpoint-without-grad-input" in text
    assert "verified: 16/16 parameters train with use_reentrant=False" in text


def test_a_frozen_adapter_is_said_in_words_and_signs(make_llama, make_report):
    assert "◇ default r=8 α=16 fp32 frozen" in screen(make_report(make_llama(trainable=False)), width=120)


def test_ascii_keeps_to_seven_bits(make_llama, make_report, reentrant):
    text = screen(make_report(make_llama(), findings=[reentrant]), ascii=True)
    assert text.isascii()
    assert "layers.0-3 x4 LlamaDecoderLayer" in text


def test_depth_match_and_expand(make_llama, make_report):
    report = make_report(make_llama())
    assert "self_attn" not in screen(report, depth=4)
    matched = screen(report, match="*.q_proj")
    assert "q_proj" in matched
    assert "mlp" not in matched
    assert "layers.0–3 ×4" in matched
    expanded = screen(report, expand=True, width=120)
    assert "layers.3 LlamaDecoderLayer" in expanded
    assert "lora_A ModuleDict" in expanded
    assert "no module path matches nothing_like_it" in screen(report, match="nothing_like_it")


def test_all_columns(make_llama, make_report):
    columns = ("params", "memory", "dtype", "shape", "device", "rank", "path")
    text = screen(make_report(make_llama()), columns=columns, width=220)
    row = next(line for line in text.splitlines() if "q_proj" in line)
    assert row.split()[-9:] == [
        "512",
        "256",
        "2.00",
        "KiB",
        "fp32",
        "16×16",
        "cpu",
        "8",
        "base_model.model.model.layers.0.self_attn.q_proj",
    ]


def test_columns_that_do_not_fit_are_told_below(make_llama, make_report):
    columns = ("params", "dtype", "shape", "rank", "path")
    text = screen(make_report(make_llama()), columns=columns, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    at = next(at for at, line in enumerate(text.splitlines()) if "q_proj" in line)
    told = " ".join(line.strip(" │└├") for line in text.splitlines()[at : at + 3])
    assert "fp32" in told
    assert "rank 8" in told
    assert "base_model.model.model.layers.0.self_attn.q_proj" in told


def test_a_tie_is_shown_and_counted_once(make_llama, make_report):
    assert "lm_head Linear tied to embed_tokens.weight" in screen(make_report(make_llama()), width=120)


def test_a_second_path_to_a_module_is_shown_as_the_same_object(make_llama, make_report):
    structure = make_llama(2)
    encoder = next(module for module in structure.modules if module.path == "base_model.model.model.norm")
    modules = tuple(
        replace(module, aliases=("base_model.model.norm_again",)) if module is encoder else module for module in structure.modules
    )
    report = make_report(replace(structure, modules=modules))
    assert "norm_again LlamaRMSNorm = base_model.model.model.norm, the same object" in screen(report, width=120)
    assert ModelTree(report).root.total == sum(parameter.numel for parameter in structure.parameters)


def test_suspected_access_paths_are_said_to_lead_to_one_object(make_llama, make_report):
    told = str(ModelTree(make_report(make_llama()), View("tree", verbosity=1)))
    assert "one object: model.model is base_model.model.model" in told
    assert "one object" not in screen(make_report(make_llama()))


def test_hostile_names_reach_no_terminal(make_llama, make_report):
    """Markup, escape codes and line breaks in a module's name are shown, not obeyed."""
    structure = make_llama(1)
    hostile = "[red]q\x1b[31m\n%s::"
    modules = tuple(
        replace(module, path="base_model.model." + hostile) if module.path.endswith("lm_head") else module for module in structure.modules
    )
    parameters = tuple(replace(parameter, aliases=()) for parameter in structure.parameters)
    text = screen(make_report(replace(structure, modules=modules, parameters=parameters)), width=120, color=True)
    assert "[red]q\\x1b[31m\\x0a%s::" in text


def test_the_api_gives_a_rich_renderable_with_plain_text(make_llama, make_report):
    tree = ModelTree(make_report(make_llama()))
    console = Console(width=80, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(tree)
    assert "\x1b[" in console.file.getvalue()
    assert "\x1b[" not in str(tree)
    assert "layers.0–3 ×4 LlamaDecoderLayer" in str(tree)


def test_colour_follows_no_color(make_llama, make_report, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in screen(make_report(make_llama()), color=True)


def test_fifty_thousand_modules_build_quickly(make_llama, make_report):
    structure = make_llama(3000)
    assert len(structure.modules) > 50_000
    started = time.process_time()
    build(structure)
    assert time.process_time() - started < 5


def test_two_models_as_one_tree_with_what_changed(make_llama, make_report):
    ours = make_report(make_llama(4))
    theirs = make_report(make_llama(4, targets=("q_proj", "k_proj"), ranks=lambda index: 16))
    text = screen(ours, other=theirs, width=160)
    assert "~ q_proj Linear 16×16 ◆ default r=8 α=16 fp32 now r 16 instead of 8, lora_alpha 32 instead of 16" in text
    assert "~ k_proj Linear 16×16 now with adapter default" in text
    assert "~ v_proj Linear 16×16 ◆ default r=8 α=16 fp32 now without adapter default" in text
    assert "layers.0–3 ×4" in text
    assert "12 changed; adapter layers 8 → 8, trainable parameters 2,048 → 4,096, findings none → none" in text


def test_a_difference_is_named_as_the_person_named_it_and_tells_new_findings(make_llama, make_report, reentrant):
    text = screen(make_report(make_llama()), other=make_report(make_llama(), findings=[reentrant]), other_name="wider.json", width=160)
    assert "with wider.json: nothing changed" in text
    assert "findings none → PI304" in text


def test_blocks_of_another_model_are_added_and_a_change_in_one_block_stands_apart(make_llama, make_report):
    text = screen(make_report(make_llama(4)), other=make_report(make_llama(6, ranks=lambda index: 4 if index == 1 else 8)), width=160)
    assert "+ layers.4–5 ×2 LlamaDecoderLayer" in text
    assert "layers.1 LlamaDecoderLayer" in text
    assert "unlike 0,2–3: self_attn.{q_proj,v_proj}: now r 4 instead of 8, lora_alpha 8 instead of 16" in text


def test_a_model_compared_with_itself_has_not_changed(make_llama, make_report):
    report = make_report(make_llama(4))
    assert "nothing changed" in screen(report, other=report)


def test_a_closed_branch_speaks_for_what_is_inside(make_llama, make_report, reentrant):
    text = screen(make_report(make_llama(), findings=[reentrant]), depth=3, width=120)
    assert "model LlamaModel (tower) 8 adapter layers inside ✗ PI304" in text
    assert "self_attn" not in text


def test_a_mode_is_said_where_it_changes(make_llama, make_report):
    structure = make_llama(4)
    frozen = "base_model.model.model.layers.2"
    modules = tuple(replace(module, training=not module.path.startswith(frozen)) for module in structure.modules)
    text = screen(make_report(replace(structure, modules=modules, mode="mixed")), width=120)
    assert "PeftModelForCausalLM in train mode" in text
    assert "layers.2 LlamaDecoderLayer in eval mode" in text
    assert "unlike 0–1,3: in eval mode\n" in text
    assert text.count(" in train mode") + text.count(" in eval mode") == 3


def test_a_module_in_modules_to_save_is_one_line(make_llama, make_report):
    """Its wrapper, the frozen original and the trained copy are shown when asked for."""
    structure = make_llama(1)
    norm = "base_model.model.model.norm"
    kept = [module for module in structure.modules if module.path != norm]
    made = [
        ModuleInfo(norm, "ModulesToSaveWrapper", "container", training=True),
        ModuleInfo(f"{norm}.original_module", "LlamaRMSNorm", "norm", training=True),
        ModuleInfo(f"{norm}.modules_to_save", "ModuleDict", "container", training=True),
        ModuleInfo(f"{norm}.modules_to_save.default", "LlamaRMSNorm", "norm", training=True),
    ]
    weight = structure.parameter[f"{norm}.weight"]
    original = replace(weight, path=f"{norm}.original_module.weight", module=f"{norm}.original_module", role="original")
    copy = replace(
        weight, path=f"{norm}.modules_to_save.default.weight", module=f"{norm}.modules_to_save.default", role="saved", requires_grad=True
    )
    parameters = [parameter for parameter in structure.parameters if parameter is not weight] + [original, copy]
    report = make_report(replace(structure, modules=(*kept, *made), parameters=tuple(parameters)))
    assert "norm LlamaRMSNorm 16 ◆ default modules_to_save" in screen(report, width=120)
    assert "original_module" not in screen(report, width=120)
    assert "original_module LlamaRMSNorm 16" in screen(report, width=120, expand=True)


def test_blocks_of_another_class_are_not_compared(make_llama, make_report):
    structure = make_llama(3)
    modules = tuple(replace(module, type="MambaLayer") if module.path.endswith("layers.1") else module for module in structure.modules)
    text = screen(make_report(replace(structure, modules=modules)), width=120)
    assert "layers.1 MambaLayer" in text
    assert "unlike" not in text


def test_a_long_label_goes_on_in_the_next_line_and_loses_nothing_that_matters(make_llama, make_report):
    """Three adapters do not fit beside a name at 60 columns; their names and ranks stay."""
    structure = make_llama(1)
    rows = structure.adapter_layers
    more = tuple(replace(layer, adapter=f"adapter_number_{number}") for number in range(3) for layer in rows)
    text = screen(make_report(replace(structure, adapter_layers=rows + more)), width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert all(f"adapter_number_{number}" in text for number in range(3))


def with_german(structure):
    """A second adapter on the first two layers, frozen and not active."""
    more = tuple(replace(layer, adapter="german", r=16, lora_alpha=32, active=False) for layer in structure.adapter_layers[:2])
    return replace(structure, adapter_layers=structure.adapter_layers + more)


def test_several_adapters_have_a_column_each_and_what_they_share_is_said_below(make_llama, make_report):
    found = screen(make_report(with_german(make_llama(1)))).splitlines()
    heads = next(line for line in found if "params" in line)
    row = next(line for line in found if "q_proj" in line)
    assert heads.split() == ["default", "german", "params", "trainable"]
    assert (row[heads.index("default") :][:3].rstrip(), row[heads.index("german") :][:3]) == ("◆8", "◇16")
    assert "german" not in row
    assert {"default: r=8 α=16 fp32", "german: r=16 α=32 fp32 inactive"} <= set(found)


def test_a_state_of_some_layers_of_an_adapter_stays_in_their_rows(make_llama, make_report):
    structure = make_llama(1)
    merged = replace(with_german(structure).adapter_layers[-1], merged=True)
    rows = (*with_german(structure).adapter_layers[:-1], merged)
    found = screen(make_report(replace(structure, adapter_layers=rows)))
    assert "german merged" in next(line for line in found.splitlines() if merged.path.rpartition(".")[2] in line)
    assert "german: r=16 α=32 fp32 inactive\n" in found


def test_what_is_adapted_in_a_thousand_layers_is_one_quiet_screen(make_llama, make_report):
    """Every seventh layer: the tree has two sorts of block, the quiet screen says it in a row."""
    structure = make_llama(1000)
    kept = tuple(layer for at, layer in enumerate(structure.adapter_layers) if (at // 2) % 7 == 0)
    reached = tuple(replace(target, matched=target.matched[::7]) for target in structure.adapters[0].targets)
    adapter = replace(structure.adapters[0], targets=reached)
    text = screen(make_report(replace(structure, adapter_layers=kept, adapters=(adapter,))), verbosity=-1)
    assert "    q_proj            143  model LlamaDecoderLayer  0–994 in steps of 7" in text.splitlines()
    assert len(text.splitlines()) <= 24


def test_a_path_that_skips_the_adapter_is_flagged_in_place(make_llama, make_report):
    """Read from the source of the forward alone: nothing has run."""
    structure = make_llama(4)
    source = Source("modeling_wavlm.py", 229, "forward", "F.linear(x, self.q_proj.weight)")
    attention = "base_model.model.model.layers.{}.self_attn"
    reads = tuple(WeightRead(f"{attention.format(index)}.q_proj", attention.format(index), source) for index in range(4))
    text = screen(make_report(replace(structure, weight_reads=reads)), width=140)
    assert "q_proj Linear 16×16 ◆ default r=8 α=16 fp32 ! skipped where .weight is read: modeling_wavlm.py:229" in text
    assert text.count("skipped") == 1
