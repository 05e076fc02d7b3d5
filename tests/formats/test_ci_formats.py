"""SARIF, GitHub annotations and JUnit: valid, stable, on the user's own lines, and safe whatever things are called.

The schema here is our own: of the official one of SARIF 2.1.0 (112 KB, in no package) every object that is written, closed as it is
there, with the properties in use and their types; and the conditions that code scanning adds.
"""

import json
from dataclasses import replace
from io import StringIO
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from peft_inspect.formats.ci import github, junit, sarif
from peft_inspect.records import Finding, Outcome, Severity, Source


def closed(*required, **properties):
    """An object of SARIF: nothing in it but what the standard names."""
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def unique(items, **more):
    return {"type": "array", "items": items, "uniqueItems": True, **more}


TEXT = {"type": "string", "minLength": 1}
LEVEL = {"enum": ["error", "warning", "note", "none"]}
BAG = {"type": "object", "properties": {"tags": unique(TEXT)}}
MESSAGE = closed("text", text=TEXT, markdown=TEXT)
PHYSICAL = closed(
    "artifactLocation",
    "region",
    artifactLocation=closed("uri", uri={"type": "string", "minLength": 1, "format": "uri-reference", "pattern": r"^[^\s\\]+$"}),
    region=closed("startLine", startLine={"type": "integer", "minimum": 1}, snippet=closed(text=TEXT)),
)
LOGICAL = closed("fullyQualifiedName", fullyQualifiedName=TEXT, kind={"const": "module"})
LOCATION = closed(
    "physicalLocation", id={"type": "integer", "minimum": -1}, message=MESSAGE, physicalLocation=PHYSICAL, logicalLocations=unique(LOGICAL)
)
RESULT = closed(
    "ruleId",
    "ruleIndex",
    "level",
    "message",
    "locations",
    "partialFingerprints",
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=MESSAGE,
    locations={"type": "array", "items": LOCATION, "minItems": 1},
    relatedLocations=unique(LOCATION),
    partialFingerprints={"type": "object", "minProperties": 1, "additionalProperties": TEXT},
    suppressions=unique(closed("kind", kind={"enum": ["inSource", "external"]})),
    properties=BAG,
)
RULE = closed(
    "id",
    "name",
    "shortDescription",
    "fullDescription",
    "help",
    "defaultConfiguration",
    id=TEXT,
    name=TEXT,
    shortDescription=MESSAGE,
    fullDescription=MESSAGE,
    help=MESSAGE,
    defaultConfiguration=closed("level", level=LEVEL),
    properties={"type": "object", "properties": {"tags": unique(TEXT), "precision": {"enum": ["very-high", "high", "medium", "low"]}}},
)
DRIVER = closed("name", "rules", name=TEXT, version=TEXT, semanticVersion=TEXT, rules=unique(RULE))
INVOCATION = closed(
    "executionSuccessful",
    executionSuccessful={"type": "boolean"},
    toolExecutionNotifications={"type": "array", "items": closed("message", level=LEVEL, message=MESSAGE)},
)
RUN = closed(
    "tool",
    "results",
    tool=closed("driver", driver=DRIVER),
    invocations={"type": "array", "items": INVOCATION},
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    results={"type": "array", "items": RESULT},
    automationDetails=closed(id=TEXT),
    properties=BAG,
)
LOG = {
    "$schema": {"type": "string", "format": "uri"},
    "version": {"const": "2.1.0"},
    "runs": {"type": "array", "items": RUN, "minItems": 1},
}
SARIF = closed(*LOG, **LOG)
LIBRARY = Source("transformers/models/wavlm/modeling_wavlm.py", 120, "forward", "F.linear(x, w)", library=True)
NASTY = "a\x1b[31m%\n::error::[b],:<&>\x00\ud800"


def log(report):
    out = StringIO()
    sarif.write(report, out)
    found = json.loads(out.getvalue())
    jsonschema.Draft202012Validator(SARIF).validate(found)
    (run,) = found["runs"]
    assert all(run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    return run


def annotations(report):
    out = StringIO()
    github.write(report, out)
    return out.getvalue().splitlines()


def suite(report):
    out = StringIO()
    junit.write(report, out)
    return ET.fromstring(out.getvalue().encode("utf-8"))


@pytest.fixture
def with_findings(make_llama, make_report):
    def made(*findings, **fields):
        return make_report(make_llama(**fields), None, findings)

    return made


def finding(code="PI201", **fields):
    values = {"severity": Severity.ERROR, "message": "a message", "modules": ("base_model.model.layers.0.q_proj",), "fix": "do it"}
    return Finding(code, "base-weight-used-directly", **{**values, **fields})


def test_a_result_is_on_the_users_own_line(with_findings):
    (result,) = log(with_findings(finding(source=Source("src/train.py", 54, "forward", "x = self.tower(x)"))))["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "src/train.py"}, "region": {"startLine": 54, "snippet": {"text": "x = self.tower(x)"}}}
    assert result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == "base_model.model.layers.0.q_proj"
    assert "relatedLocations" not in result


def test_files_below_the_working_directory_are_relative_and_others_are_file_uris(with_findings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside, outside = (Source(file, 3, "f", "c") for file in (str(tmp_path / "my models" / "train.py"), "/elsewhere/train.py"))
    uris = [
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for result in log(with_findings(finding(source=inside), finding("PI202", source=outside)))["results"]
    ]
    assert uris == ["my%20models/train.py", "file:///elsewhere/train.py"]


def test_a_line_inside_a_library_is_told_beside_the_file_that_was_inspected(with_findings):
    report = with_findings(finding(source=LIBRARY), source_file="lora.yaml")
    (result,) = log(report)["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "lora.yaml"
    assert result["relatedLocations"][0]["physicalLocation"]["region"]["startLine"] == 120
    (annotation, _) = annotations(report)
    assert annotation.startswith("::error file=lora.yaml,line=1,title=PI201 base-weight-used-directly::")
    assert "modeling_wavlm.py:120" in annotation


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, in code of PEFT
def test_a_line_that_a_run_meets_inside_transformers_is_no_file_of_the_repository():
    from peft import LoraConfig, get_peft_model
    from transformers import WavLMConfig, WavLMModel

    import peft_inspect

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "num_feat_extract_layers": 1}
    convolution = {
        "conv_dim": (8,),
        "conv_stride": (8,),
        "conv_kernel": (8,),
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
    }
    model = get_peft_model(WavLMModel(WavLMConfig(**shape, **convolution)), LoraConfig(target_modules=["q_proj"]))
    report = peft_inspect.check(model, select=("PI201",), verify=False)
    (found,) = report.findings
    assert found.source.file == "transformers/models/wavlm/modeling_wavlm.py"
    assert "at transformers/models/wavlm/modeling_wavlm.py:" in annotations(report)[0]
    assert not annotations(report)[0].startswith("::error file=transformers/")


def test_a_finding_without_a_line_is_on_the_callable_that_was_named(with_findings):
    entry = Source("train.py", 12, "build_model", "def build_model():")
    report = with_findings(finding(), source_file="train.py", entry=entry)
    assert annotations(report)[0].startswith("::error file=train.py,line=12,title=PI201 ")
    assert log(report)["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] == 12
    elsewhere = with_findings(finding(), source_file="lora.yaml", entry=entry)
    assert annotations(elsewhere)[0].startswith("::error file=lora.yaml,line=1,title=PI201 ")


def test_on_github_paths_count_from_the_workspace_wherever_the_step_works(with_findings, tmp_path, monkeypatch):
    (tmp_path / "services" / "chat").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "services" / "chat")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    files = {"train.py": "services/chat/train.py", "../common.py": "services/common.py", "/elsewhere/x.py": "/elsewhere/x.py"}
    for file, shown in files.items():
        report = with_findings(finding(source=Source(file, 3, "f", "c")))
        assert annotations(report)[0].startswith(f"::error file={shown},line=3,")
    assert log(with_findings(finding(), source_file="lora.yaml"))["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == {
        "uri": "services/chat/lora.yaml"
    }
    monkeypatch.setenv("GITHUB_WORKSPACE", "/another/place")
    assert annotations(with_findings(finding(), source_file="lora.yaml"))[0].startswith("::error file=lora.yaml,")


def test_a_finding_without_any_file_still_has_one(with_findings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = replace(with_findings(finding()), source="arch:llama")
    assert log(report)["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "arch/llama"
    (tmp_path / "pyproject.toml").touch()
    assert log(report)["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "pyproject.toml"


def test_fingerprints_survive_moved_lines_and_differ_between_faults(with_findings):
    def prints(*findings):
        return [result["partialFingerprints"]["primaryLocationLineHash"] for result in log(with_findings(*findings))["results"]]

    line = Source("train.py", 54, "forward", "x = self.tower(x)")
    (before,), (moved,) = prints(finding(source=line)), prints(finding(source=replace(line, line=60)))
    assert before == moved
    others = prints(finding(source=line), finding(source=line), finding("PI202", source=line), finding(modules=("other",)))
    assert len(set(others)) == 4
    assert before == others[0]


def test_rules_carry_their_page(with_findings):
    report = with_findings(finding())
    outcomes = (Outcome("PI201", "base-weight-used-directly", "found", severity=Severity.ERROR, help="The title.\n\nWhy\nit is.\n\nWhat."),)
    (rule,) = log(replace(report, outcomes=outcomes))["tool"]["driver"]["rules"]
    assert rule["shortDescription"]["text"] == "The title."
    assert rule["fullDescription"]["text"] == "Why it is."
    assert rule["help"]["text"].endswith("What.")
    assert rule["defaultConfiguration"]["level"] == "error"


def test_every_rule_of_the_catalogue_gives_valid_metadata(with_findings):
    from peft_inspect.diagnose import Evidence, diagnose

    report = with_findings()
    rules = log(diagnose("train.py:m", Evidence(report.structure)))["tool"]["driver"]["rules"]
    assert len(rules) == len({rule["id"] for rule in rules}) > 20


def test_a_crashed_rule_makes_the_run_unsuccessful(with_findings):
    crashed = replace(with_findings(), outcomes=(Outcome("PI201", "x", "crashed", "KeyError: 'q'"),))
    (invocation,) = log(crashed)["invocations"]
    assert invocation["executionSuccessful"] is False
    assert "KeyError" in invocation["toolExecutionNotifications"][0]["message"]["text"]
    assert suite(crashed).get("errors") == "1"


def test_annotations_by_severity_and_a_summary(with_findings):
    findings = [finding(severity=severity, modules=()) for severity in Severity]
    lines = annotations(with_findings(*findings))
    assert [line.split(" ")[0] for line in lines[:3]] == ["::error", "::warning", "::notice"]
    assert lines[3].startswith("peft-inspect: 3 findings in train.py:build_model")
    assert annotations(with_findings()) == ["peft-inspect: no findings in train.py:build_model, 1 rules judged"]


def test_nothing_in_a_name_ends_a_workflow_command_or_starts_another(with_findings):
    nasty = finding(message=NASTY, modules=(NASTY,), fix=NASTY, source=Source(NASTY, 1, NASTY, NASTY))
    lines = annotations(replace(with_findings(nasty), source=NASTY))
    assert len(lines) == 2
    assert "\x1b" not in "".join(lines)
    head, _, _ = lines[0].partition("::error file=")[2].partition("::")
    assert head.count(",") == 2


def test_junit_counts_what_failed_and_what_did_not_run(broken_report):
    found = suite(broken_report)
    counts = {"tests": "3", "failures": "1", "errors": "0"}
    assert {name: found[0].get(name) for name in (*counts, "skipped")} == {**counts, "skipped": "1"}
    assert {name: value for name, value in found.items() if name != "time"} == {"name": "peft-inspect", **counts}  # all that its schema has
    cases = {case.get("name").split()[0]: case for case in found.iter("testcase")}
    assert cases["PI304"].find("failure").text.startswith("error: ")
    assert "needs values" in cases["PI310"].find("skipped").get("message")
    assert not list(cases["PI112"])


def test_a_warning_is_told_and_fails_no_junit_case(with_findings):
    found = suite(with_findings(finding(severity=Severity.WARNING)))
    assert found.get("failures") == "0"
    assert "warning: a message" in found.find(".//system-out").text


def test_hostile_names_are_valid_xml_and_valid_sarif(with_findings):
    nasty = finding(message=NASTY, modules=(NASTY.replace("\ud800", ""),), fix=NASTY)
    report = replace(with_findings(nasty), source=NASTY)
    assert "\x1b" not in suite(report).find(".//failure").text
    assert "\x1b" not in log(report)["results"][0]["message"]["text"]
