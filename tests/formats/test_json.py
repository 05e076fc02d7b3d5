import functools
import importlib.resources
import json
import warnings
from dataclasses import replace
from io import StringIO

import jsonschema
import pytest

import peft_inspect
from peft_inspect.formats.json import document, write
from peft_inspect.rules.adapter_examples import adapted

SCHEMA = json.loads(importlib.resources.files("peft_inspect.formats").joinpath("report.schema.json").read_text(encoding="utf-8"))


def as_json(report):
    out = StringIO()
    write(report, out)
    return json.loads(out.getvalue(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.fixture(scope="module")
def real_report():
    """As an inspection gives it, with every part that a report can have."""
    with warnings.catch_warnings(action="ignore"):  # what PEFT makes transformers warn about
        return peft_inspect.check(adapted())


@pytest.fixture(params=["broken", "healthy", "tree", "real"])
def any_report(request, broken_report, healthy_report, real_report, make_llama, make_report):
    return {"broken": broken_report, "healthy": healthy_report, "tree": make_report(make_llama()), "real": real_report}[request.param]


def test_every_report_is_valid_against_the_schema_in_the_package(any_report):
    jsonschema.Draft202012Validator(SCHEMA).validate(as_json(any_report))


def closed(schema):
    """The schema without room for keys that it does not describe. The one in the package leaves room: keys may be added."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    described = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    return {**inner, "additionalProperties": False} if described else inner


def paths(value, path=()):
    """The path of every object in a report whose keys are the schema's, not names or facts."""
    if isinstance(value, dict) and path[-1:] not in (("facts",), ("by_tower",), ("inputs",), ("timings",)):
        yield path
        for key, item in value.items():
            yield from paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from paths(item, (*path, index))


def test_the_schema_describes_every_key(any_report):
    jsonschema.Draft202012Validator(closed(SCHEMA)).validate(as_json(any_report))


def test_a_key_that_the_schema_does_not_describe_is_noticed(real_report):
    report = as_json(real_report)
    described = jsonschema.Draft202012Validator(closed(SCHEMA))
    of_each_kind = {".".join(key for key in path if isinstance(key, str)): path for path in paths(report)}
    assert {"", "coverage", "coverage.adapters", "adapters.parameters", "layers.parameters", "batch"} <= of_each_kind.keys()
    for path in of_each_kind.values():
        place = functools.reduce(lambda part, key: part[key], path, report)
        place["undescribed"] = 1
        assert not described.is_valid(report), path
        del place["undescribed"]


def test_the_api_gives_the_same_object(broken_report):
    assert broken_report.to_dict() == as_json(broken_report)


def test_a_broken_run_in_numbers(broken_report):
    found = as_json(broken_report)
    assert found["model"]["parameters"] == {"total": 13456, "trainable": 2048, "adapter": 2048}
    assert found["gradients"] == {
        "loss": 4.16,
        "lora": {"total": 16, "with_grad": 0, "without_grad": 16, "zero": 0, "nonfinite": 0, "frozen": 0},
        "other_trainable": {"total": 0, "with_grad": 0},
    }
    assert found["layers"][0]["parameters"][0] == {
        "path": "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "shape": [8, 16],
        "dtype": "float32",
        "requires_grad": True,
        "grad": "none",
        "norm": None,
    }
    target = found["adapters"][0]["targets"][0]
    assert {key: target[key] for key in ("entry", "matched", "by_tower", "layers")} == {
        "entry": "q_proj",
        "matched": 4,
        "by_tower": {"base_model.model.model": 4},
        "layers": "0-3",
    }


def test_a_finding_carries_line_fix_and_sorted_facts(broken_report):
    finding = as_json(broken_report)["findings"][0]
    assert finding["source"] == {"file": "train.py", "line": 54, "function": "forward", "code": "    hidden = self.tower(x)"}
    assert finding["facts"] == {"use_reentrant": True, "blocks": ["a", "b"]}
    assert finding["fix_verified"] is True
    assert len(finding["modules"]) == 8


def test_the_tree_has_no_gradients_and_no_states(make_llama, make_report):
    found = as_json(make_report(make_llama()))
    assert "gradients" not in found
    assert found["layers"][0]["calls"] is None
    assert found["layers"][0]["parameters"][0]["grad"] is None


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), None])
def test_a_loss_that_is_no_number_is_null(make_llama, make_trace, make_report, loss):
    structure = make_llama(1)
    assert as_json(make_report(structure, make_trace(structure, loss=loss)))["gradients"]["loss"] is None


def test_zeros_of_a_fresh_adapter_count_as_gradients_and_other_zeros_are_told_apart(make_llama, make_trace, make_report):
    structure = make_llama(1)
    trace = make_trace(structure)
    states = ("zero-at-init", "ok", "zero", "nonfinite")
    trace = replace(trace, gradients=tuple(replace(gradient, state=state) for gradient, state in zip(trace.gradients, states, strict=True)))
    counts = as_json(make_report(structure, trace))["gradients"]["lora"]
    assert counts == {"total": 4, "with_grad": 3, "without_grad": 1, "zero": 1, "nonfinite": 1, "frozen": 0}


def test_hostile_names_stay_what_they_are_and_reach_the_terminal_escaped(make_llama, make_report):
    """A path must be usable with get_submodule, so it is escaped by JSON and not rewritten."""
    structure = replace(make_llama(1), root_type="A\x1b[31m\u202e[bold]%")
    out = StringIO()
    write(make_report(structure), out)
    assert out.getvalue().isascii()
    assert "\x1b" not in out.getvalue()
    assert json.loads(out.getvalue())["model"]["class"] == "A\x1b[31m\u202e[bold]%"


def test_same_input_same_bytes_apart_from_timings(broken_report):
    again = replace(broken_report, timings={"load_s": 9.0, "trace_s": 9.0, "total_s": 9.0})
    first, second = (document(report, {}) for report in (broken_report, again))
    assert json.dumps(first) == json.dumps(second)
