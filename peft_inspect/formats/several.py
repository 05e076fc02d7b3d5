"""Reports of several targets in one output: what a format does for one report, done for each, in a form that its readers take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO
from typing import TextIO
from xml.etree import ElementTree as ET  # reads back only what junit wrote

from peft_inspect.formats import View, writer
from peft_inspect.formats.names import visible
from peft_inspect.records import Diagnosis, InspectionError

_APART = frozenset({"html", "svg", "lora-config"})  # one page for one model


def write_all(name: str, reports: Mapping[str, Diagnosis], out: TextIO, *, view: View) -> None:
    """Write the reports, by target, in the format called `name`.

    Raises:
        InspectionError: the format holds one report only.
    """
    write = writer(view.command, name, view)
    if len(reports) == 1:
        write(next(iter(reports.values())), out)
    elif name in _APART:
        raise InspectionError(f"--format {name} writes one target: name it as MODEL")
    elif name == "json":
        json.dump(
            {"schema": 1, "targets": {target: json.loads(_text(name, report, view)) for target, report in reports.items()}}, out, indent=2
        )
        out.write("\n")
    elif name == "sarif":
        logs = [json.loads(_text(name, report, view)) for report in reports.values()]
        for target, log in zip(reports, logs, strict=True):  # code scanning keeps runs of one tool apart by their category
            log["runs"][0]["automationDetails"] = {"id": f"peft-inspect/{target}/"}
        json.dump({**logs[0], "runs": [run for log in logs for run in log["runs"]]}, out, indent=2)
        out.write("\n")
    elif name == "junit":
        suites = ET.Element("testsuites", {"name": "peft-inspect"})
        for target, report in reports.items():
            suite = ET.fromstring(_text(name, report, view).encode())[0]  # noqa: S314  # our own output
            suite.set("name", visible(target))
            suites.append(suite)
        ET.indent(suites)
        out.write('<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n")
    else:
        _one_after_another(name, reports, out, view)


def _one_after_another(name: str, reports: Mapping[str, Diagnosis], out: TextIO, view: View) -> None:
    """For people and for annotations: each under its name."""
    write = writer(view.command, name, view)
    for number, (target, report) in enumerate(reports.items()):
        if name == "text":
            out.write("\n" * (number > 0) + f"── {visible(target)} ──\n".replace("──", "--" if view.ascii else "──"))
        elif name == "markdown":
            out.write("\n" * (number > 0) + f"# `{visible(target)}`\n\n")
        write(report, out)


def _text(name: str, report: Diagnosis, view: View) -> str:
    out = StringIO()
    writer(view.command, name, view)(report, out)
    return out.getvalue()
