from dataclasses import replace
from io import StringIO

from rich.text import Text

from peft_inspect.formats.text import plain, write
from peft_inspect.formats.view import View
from peft_inspect.formats.wrapped import wrapped
from peft_inspect.records import GradientInfo, Outcome


def test_a_broken_run_names_the_cause_its_line_and_the_tried_fix(broken_report):
    """The whole screen."""
    assert plain(broken_report).splitlines() == [
        "train.py:build_model",
        "PeftModelForCausalLM → LoraModel → LlamaForCausalLM",
        "parameters 13,456, trainable 2,048 (15.22 %), your weights, train mode",
        "batch: input_ids int64[1, 8], labels int64[1, 8] (made from the signature and config)",
        "",
        "LoRA params with gradients: 0/16",
        "LoRA params without gradients: 16/16 (16 no gradient)",
        "Other trainable params with gradients: 0/0",
        "",
        "error PI304 reentrant-checkpoint-without-grad-input",
        "  reentrant checkpointing ran 8 adapter layers without gradients: none of the inputs of the blocks requires grad",
        "  8 adapter layers:",
        "    base_model.model.model.layers.0–3.self_attn.{q_proj,v_proj}",
        "  train.py:54 in forward",
        "      hidden = self.tower(x)",
        "  fix: pass use_reentrant=False",
        "  verified: 16/16 parameters train with use_reentrant=False",
        "",
        "1 error; 3 rules: 1 clean, 1 found, 1 skipped",
        f"nothing trains: {broken_report.findings[0].message}, train.py:54",
    ]


def test_a_person_who_asks_for_more_is_told_what_was_skipped_and_one_who_asks_for_less_has_four_lines(broken_report):
    verbose, quiet = StringIO(), StringIO()
    write(broken_report, verbose, View("gradcheck", verbosity=1))
    assert "skipped: PI310 (needs values: run with --weights random or pretrained)" in verbose.getvalue()
    write(broken_report, quiet, View("gradcheck", verbosity=-1, width=200))
    assert [line.partition(" ")[0] for line in quiet.getvalue().splitlines()] == [
        "train.py:build_model",
        *["LoRA", "LoRA", "Other"],
        "error",
        "nothing",
    ]


def test_a_healthy_run_says_what_was_judged(healthy_report):
    lines = plain(healthy_report).splitlines()
    assert "LoRA params with gradients: 16/16" in lines
    assert "LoRA params without gradients: 0/16" in lines
    assert lines[-2] == "no findings; 1 rules: 1 clean"


def test_the_grepped_lines_start_a_line_on_every_width_and_never_wrap(broken_report):
    for width in (20, 80, 200):
        out = StringIO()
        write(broken_report, out, View("gradcheck", width=width, color=False))
        assert out.getvalue().count("\nLoRA params with gradients: 0/16\n" if width >= 40 else "\nLoRA params") >= 1


def test_other_trainable_parameters_are_counted_apart(make_llama, make_trace, make_report):
    structure = make_llama(1)
    trace = make_trace(structure, "none")
    head = tuple(GradientInfo(f"proj_speech.{name}", None, None, "ok", 1.0) for name in ("weight", "bias"))
    text = plain(make_report(structure, replace(trace, gradients=trace.gradients + head)))
    assert "Other trainable params with gradients: 2/2" in text
    assert "LoRA params with gradients: 0/4" in text


def test_a_fix_that_did_not_help_says_so(broken_report):
    finding = replace(broken_report.findings[0], fix_verified=False, verified=None)
    assert "verified: no, trying it did not bring the gradients back" in plain(replace(broken_report, findings=(finding,)))
    untried = replace(finding, fix_verified=None)
    assert "verified" not in plain(replace(broken_report, findings=(untried,)))
    failed = replace(untried, verified="not judged: the run with it raised ValueError: no")
    assert "verified: not judged: the run with it raised ValueError: no\n" in plain(replace(broken_report, findings=(failed,)))


def test_a_crashed_rule_is_shown(broken_report):
    crashed = replace(broken_report, outcomes=(Outcome("PI101", "unmatched-target-module", "crashed", "KeyError: 'x'"),))
    assert "crashed: PI101 unmatched-target-module (KeyError: 'x')" in plain(crashed)


def test_an_ignored_rule_shows_its_reason(broken_report):
    ignored = replace(
        broken_report, findings=(), outcomes=(Outcome("PI103", "adapters-in-several-towers", "ignored", "both towers on purpose"),)
    )
    assert "ignored: PI103 (both towers on purpose)" in plain(ignored)


def test_hostile_text_is_shown_not_obeyed(broken_report):
    finding = replace(broken_report.findings[0], message="[red]\x1b[2J\x07 broke")
    out = StringIO()
    write(replace(broken_report, findings=(finding,)), out, View("check", width=120, color=True))
    assert "[red]\\x1b[2J\\x07 broke" in out.getvalue()


def test_a_long_path_ends_its_lines_at_dots_and_commas(broken_report):
    paths = tuple(f"base_model.model.audio_tower.layers.{index}.attention.{name}_projection" for index in range(4) for name in "kqv")
    out = StringIO()
    write(replace(broken_report, findings=(replace(broken_report.findings[0], modules=paths),)), out, View(width=60, color=False))
    assert "    base_model.model.audio_tower.layers.0–3.attention.\n    {k_projection,q_projection,v_projection}\n" in out.getvalue()


def test_a_long_message_wraps_under_its_own_indent(broken_report):
    out = StringIO()
    write(broken_report, out, View("check", width=60, color=False))
    lines = out.getvalue().splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("  reentrant checkpointing"))
    assert lines[at + 1].startswith("  ")
    assert max(map(len, lines)) <= 60


def test_no_line_ends_with_a_label_whose_value_is_on_the_next(make_llama, make_report):
    report = make_report(make_llama())
    for width in range(40, 100):
        out = StringIO()
        write(report, out, View("check", width=width, color=False))
        assert not [line for line in out.getvalue().splitlines() if line.endswith(":") and len(line) > 20], width


def test_a_model_without_adapter_layers_has_no_map_and_no_gap_for_one(make_llama, make_trace, make_report):
    bare = replace(make_llama(1), adapters=(), adapter_layers=())
    out = StringIO()
    write(make_report(bare, replace(make_trace(bare, "ok"), gradients=())), out, View("gradcheck", width=80, color=False))
    assert "LoRA params with gradients: 0/0" in out.getvalue()
    assert "\n\n\n" not in out.getvalue()


def test_code_breaks_where_python_lets_it():
    """Not inside a name or a string."""
    code = Text('model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})')
    assert [line.plain for line in wrapped(code, 60)] == [
        "model.gradient_checkpointing_enable(",
        'gradient_checkpointing_kwargs={"use_reentrant": True})',
    ]


def test_the_norm_of_every_parameter_has_a_row_for_each_layer(make_llama, make_trace, make_report):
    structure = make_llama(1)
    trace = make_trace(structure)
    first, second, *rest = trace.gradients
    trace = replace(trace, gradients=(replace(first, state="none", norm=None), replace(second, norm=0.5), *rest))
    out = StringIO()
    write(make_report(structure, trace), out, View("gradcheck", width=80, color=False, norms=True))
    text = out.getvalue().splitlines()
    at = text.index("L2 norm of the gradient")
    assert text[at + 1].split() == ["module", "lora_A", "lora_B"]
    assert [line.split() for line in text[at + 3 : at + 5]] == [
        ["0.self_attn.q_proj", "none", "5.00e-01"],
        ["0.self_attn.v_proj", *[f"{gradient.norm:.2e}" for gradient in rest]],
    ]
