"""Reports of several targets in one output: what a format does for one report, done for each, in a form that its readers take.

Targets that could not be inspected are in it too, so that the others alone never read as clean.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from io import StringIO
from typing import TextIO
from xml.etree import ElementTree as ET  # reads back only what junit wrote

from peft_inspect.formats import View, markdown, writer
from peft_inspect.formats.answer import answer_of_several
from peft_inspect.formats.ci import github, junit
from peft_inspect.formats.names import visible, write_json
from peft_inspect.formats.screen import Line, Screen
from peft_inspect.records import Diagnosis, InspectionError

_APART = frozenset({"html", "svg", "lora-config"})  # one page for one model


def write_all(
    name: str,
    reports: Mapping[str, Diagnosis],
    failed: Mapping[str, str],
    out: TextIO,
    *,
    view: View,
    red: Collection[str] = (),
    what: str = "targets",
) -> None:
    """Write the reports, by target, in the format called `name`.

    Args:
        name: of the format.
        reports: by target.
        failed: the targets that could not be inspected, and why.
        out: where to.
        view: what is drawn.
        red: the targets with a finding at or above what they fail on, which text and Markdown end with.
        what: they are.

    Raises:
        InspectionError: the format holds one report only.
    """
    if len(reports) == 1 and not failed:
        writer(view.command, name, view)(next(iter(reports.values())), out)
    elif name in _APART:
        raise InspectionError(f"--format {name} writes one target: name it as MODEL")
    elif name == "json":
        documents = {target: json.loads(_text(name, report, view)) for target, report in reports.items()}
        write_json({"schema": 1, "targets": documents, "failed": dict(failed)}, out)
    elif name == "sarif":
        _sarif(reports, out, view)
    elif name == "junit":
        _junit(reports, failed, out, view)
    else:
        _one_after_another(name, reports, failed, out, view)
        ending = answer_of_several(what, reports, failed, red)
        if name == "text":
            out.write("\n")
            Screen(out, view).show([Line(ending)])
        elif name == "markdown":
            out.write(f"\n**{markdown.prose(ending.plain)}**\n")


def _sarif(reports: Mapping[str, Diagnosis], out: TextIO, view: View) -> None:
    """A run for each report. A target that failed has none: code scanning would take its old alerts for fixed."""
    logs = [json.loads(_text("sarif", report, view)) for report in reports.values()]
    for target, log in zip(reports, logs, strict=True):  # code scanning keeps runs of one tool apart by their category
        log["runs"][0]["automationDetails"] = {"id": f"peft-inspect/{target}/"}
    frame = logs[0] if logs else {"version": "2.1.0"}
    write_json({**frame, "runs": [run for log in logs for run in log["runs"]]}, out)


def _junit(reports: Mapping[str, Diagnosis], failed: Mapping[str, str], out: TextIO, view: View) -> None:
    suites = []
    for target, report in reports.items():
        suite = ET.fromstring(_text("junit", report, view).encode())[0]  # noqa: S314  # our own output
        suite.set("name", visible(target))
        suites.append(suite)
    suites += (junit.not_inspected(target, why) for target, why in failed.items())
    out.write(junit.document(suites))


def _one_after_another(name: str, reports: Mapping[str, Diagnosis], failed: Mapping[str, str], out: TextIO, view: View) -> None:
    """For people and for annotations: each under its name."""
    write = writer(view.command, name, view)
    between = ""
    for target, report in reports.items():
        out.write(between + _heading(name, target, view))
        write(report, out)
        between = "" if name == "github" else "\n"
    for target, why in failed.items():
        out.write(between + _heading(name, target, view))
        if name == "github":
            github.write_failure(target, why, out)
        elif name == "markdown":
            markdown.write_failure(why, out)
        else:
            out.write(f"could not be inspected: {visible(why, keep=chr(10))}\n")
        between = "" if name == "github" else "\n"


def _heading(name: str, target: str, view: View) -> str:
    dashes = "--" if view.ascii else "──"
    return {"text": f"{dashes} {visible(target)} {dashes}\n", "markdown": f"# {markdown.code(target)}\n\n"}.get(name, "")


def _text(name: str, report: Diagnosis, view: View) -> str:
    out = StringIO()
    writer(view.command, name, view)(report, out)
    return out.getvalue()
