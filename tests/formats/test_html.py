import json
import re
from dataclasses import replace
from io import StringIO

import pytest

from peft_inspect.formats.html import write
from peft_inspect.records import Finding, Severity


def page_of(report):
    out = StringIO()
    write(report, out)
    return out.getvalue()


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_stands_alone(broken_report):
    """Nothing is fetched, and the policy of the page would not allow it."""
    page = page_of(broken_report)
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page)
    assert "http://" not in page
    assert "https://" not in page
    assert "{{" not in page


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{script}}\x1b[31m\u202e&amp;"


def test_hostile_names_stay_text(broken_report):
    finding = replace(broken_report.findings[0], message=HOSTILE, fix=HOSTILE)
    report = replace(broken_report, source=HOSTILE, findings=(finding,), structure=replace(broken_report.structure, notes=(HOSTILE,)))
    page = page_of(report)
    assert "<img" not in page
    assert "alert(1)</script>" not in page
    assert page.count("<script") == 2
    assert data_of(page)["source"] == HOSTILE
    assert data_of(page)["findings"][0]["message"] == HOSTILE


def test_a_tree_without_a_run_is_a_page_too(make_llama, make_report):
    data = data_of(page_of(make_report(make_llama())))
    assert data["map"] is None
    assert data["gradients"] is None


def test_a_page_without_scripts_still_reads(broken_report):
    assert "LoRA params with gradients: 0/16" in re.search(r"<noscript><pre>(.*?)</pre>", page_of(broken_report), re.DOTALL)[1]


@pytest.mark.parametrize("code", ["PI101"])
def test_a_finding_without_modules_has_no_links(broken_report, code):
    finding = Finding(code, "unmatched-target-module", Severity.ERROR, "q matches nothing", fix="q_proj")
    assert data_of(page_of(replace(broken_report, findings=(finding,))))["findings"][0]["places"] == []
