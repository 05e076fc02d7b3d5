"""Every string of a record that a model, a config, a file or a library can fill is hostile at once, in every format.

A terminal must not obey it, a CI runner must not take it for a command, and XML, HTML and JSON must stay well-formed.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from io import StringIO
from xml.etree import ElementTree as ET

import pytest

import peft_inspect.records as records
from peft_inspect.formats import FORMATS, View, writer
from peft_inspect.records import AdapterFile, Carried, ConfigEntry, Coverage, Outcome, Source, TensorInfo

HOSTILE = {
    "escape codes": "\x1b[31m\x1b]0;x\x07",
    "a workflow command": "\n::error::x",
    "an indented workflow command": "\n  ::warning file=a::x",
    "an old workflow command": "##[error]x",
    "a carriage return": "\r::stop-commands::x",
    "markup": "[red]</script><img src=x onerror=alert(1)>&\"'",
    "noncharacters": "\ufffe\uffff\x00",
    "a right-to-left override": "\u202e\u202d",
    "a line separator": "\u2028\u2029",
    "markdown": "`|*_<!-- ](javascript:x)",
    "a lone surrogate": "\ud800",
}
STEERING = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\u2028\\u2029\\ufffe\\uffff]")
OURS = {"code", "rule", "help"}  # written by the rules themselves
COMMAND = re.compile(r"^\s*::[\w-]+.*::|##\[", re.MULTILINE)


def poisoned(value, poison):
    """The same record with `poison` behind every component of every string that is not one of a fixed set."""
    if type(value) is str:
        return ".".join(part + poison for part in value.split("."))
    if dataclasses.is_dataclass(value):
        free = [field.name for field in dataclasses.fields(value) if field.init and field.name not in OURS and _is_free(field.type)]
        return dataclasses.replace(value, **{name: poisoned(getattr(value, name), poison) for name in free})
    if isinstance(value, (tuple, frozenset)):
        return type(value)(poisoned(item, poison) for item in value)
    if isinstance(value, Mapping):
        return {poisoned(key, poison): poisoned(item, poison) for key, item in value.items()}
    return value


def _is_free(annotation):
    """Whether a field holds text, or records that do; names such as Mode and Role are sets of fixed words."""
    return bool(re.search(r"\b(str|Any)\b", annotation)) or any(re.search(rf"\b{name}\b", annotation) for name in RECORDS)


RECORDS = [name for name in records.__all__ if dataclasses.is_dataclass(getattr(records, name))]


@pytest.fixture
def report(make_llama, make_trace, make_report, reentrant):
    structure = make_llama(2)
    parameters = tuple(
        dataclasses.replace(parameter, quantization="nf4" if "q_proj" in parameter.path and parameter.role == "base" else None)
        for parameter in structure.parameters
    )
    entry = ConfigEntry("target_modules", "q_proj", (structure.adapter_layers[0].path,), closest=("k_proj",), names=("q_proj",))
    adapters = tuple(dataclasses.replace(adapter, targets=(entry,)) for adapter in structure.adapters)
    layer = structure.adapter_layers[0].path
    coverage = (
        Coverage(
            tower="model",
            stack="model.layers",
            block="LlamaDecoderLayer",
            part="LlamaAttention",
            name="q_proj",
            kind="linear",
            layers=(layer,),
            adapted=(layer,),
            indices=(0,),
            adapted_indices=(0,),
            parameters=256,
            adapted_parameters=256,
            carried=(Carried("default", 1, (0,), (8,), 256),),
        ),
    )
    structure = dataclasses.replace(
        structure, parameters=parameters, adapters=adapters, coverage=coverage, notes=("a note",), source_file="train.py"
    )
    trace = make_trace(structure, "none")
    finding = dataclasses.replace(reentrant, modules=(structure.adapter_layers[0].path,), fix_verified=False)
    outcomes = [
        Outcome("PI304", finding.rule, "found"),
        Outcome("PI310", "zero-gradient", "crashed", "ValueError: x"),
        Outcome("PI302", "x", "ignored", "meant"),
    ]
    made = make_report(
        structure, trace, (finding, dataclasses.replace(finding, source=Source("a.py", 1, "f", "x", library=True))), outcomes
    )
    file = AdapterFile("adapter/adapter_model.safetensors", {"r": 8}, (TensorInfo("a.lora_A.weight", (8, 16), "F32"),))
    return dataclasses.replace(made, adapter_files=(file,))


WRITTEN = [(command, name) for command, names in FORMATS.items() for name in names]


@pytest.mark.parametrize(("command", "name"), WRITTEN, ids=[f"{command} {name}" for command, name in WRITTEN])
@pytest.mark.parametrize("poison", HOSTILE.values(), ids=HOSTILE)
def test_nothing_untrusted_steers_what_reads_the_report(command, name, poison, report):
    hostile = poisoned(report, poison)
    for verbosity in (-1, 0, 1):
        out = StringIO()
        writer(command, name, View(command, width=80, targets=True, verbosity=verbosity))(hostile, out)
        text = out.getvalue()
        text.encode()  # no surrogate
        if name in ("json", "sarif", "lora-config"):
            json.loads(text)
            assert not COMMAND.search(text)
            continue
        assert not (found := STEERING.search(text)), ascii(text[max(found.start() - 80, 0) : found.end() + 20])
        if name in ("svg", "junit"):
            ET.fromstring(text)
        if name not in ("github", "html", "svg", "junit"):
            assert not (found := COMMAND.search(text)), ascii(text[max(found.start() - 80, 0) : found.end() + 20])
        if name == "github":
            told = [line for line in text.splitlines() if COMMAND.search(line)]
            assert all(re.match(r"::(error|warning|notice) ", line) for line in told), told
            assert len(told) == len(hostile.findings), told
        if name in ("html", "svg"):
            assert "<img" not in text
