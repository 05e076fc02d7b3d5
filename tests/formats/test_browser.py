"""The HTML report in a real browser."""

import shutil
import time
from dataclasses import replace
from typing import get_args

import pytest

from peft_inspect.formats import View
from peft_inspect.formats.html import write
from peft_inspect.formats.view import Column
from peft_inspect.records import Carried, Coverage, Finding, GradientInfo, Outcome, Severity

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.keys import Keys  # noqa: E402  # after the check that it is there

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--window-size=1280,1600",
]


@pytest.fixture(scope="module")
def browser():
    chromium, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield session
    session.quit()


@pytest.fixture
def opened(browser, tmp_path):
    """Write the page of a report and open it; afterwards the console must have stayed empty."""

    def open_page(report, view=None):
        page = tmp_path / "report.html"
        with page.open("w", encoding="utf-8") as out:
            write(report, out, view)
        browser.get(page.as_uri())
        wait(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "yes")
        return browser

    yield open_page
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def wait(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def texts(browser, selector):
    return [element.text for element in browser.find_elements("css selector", selector)]


def rows(browser):
    return texts(browser, "#modules .name")


def test_the_page_shows_counts_findings_and_folded_blocks(opened, broken_report):
    page = opened(broken_report)
    assert "0/16" in texts(page, "#tiles b")
    assert "hidden = self.tower(x)" in texts(page, ".finding code")
    assert "Verified: 16/16 parameters train with use_reentrant=False" in texts(page, ".finding p")
    assert "0–3 ×4" in rows(page)
    assert "self_attn" not in rows(page)
    requests = page.execute_script("return performance.getEntriesByType('resource').length")
    assert requests == 0


def test_a_finding_leads_to_its_place_in_the_tree(opened, broken_report):
    page = opened(broken_report)
    page.find_element("css selector", ".finding button.link").click()
    focused = page.switch_to.active_element
    assert focused.get_attribute("role") == "treeitem"
    assert page.execute_script("return document.activeElement.node.path") == "base_model.model.model.layers.0.self_attn.q_proj"
    assert "✗ PI304" in focused.text


def test_a_cell_of_the_map_tells_its_value_and_leads_to_its_module(opened, healthy_report):
    page = opened(healthy_report)
    cells = page.find_elements("css selector", ".map td[data-state]")
    assert len(cells) == 8
    webdriver.ActionChains(page).move_to_element(cells[2]).perform()
    assert "self_attn.q_proj [default] layer 2: gradient, norm 3.54e-1, 2/2 parameters" in page.find_element("id", "cell").text
    cells[2].click()
    assert page.execute_script("return document.activeElement.node.path") == "base_model.model.model.layers.2.self_attn.q_proj"


def test_the_map_is_walked_with_the_arrow_keys(opened, broken_report):
    page = opened(broken_report)
    page.execute_script("document.querySelector('.map td[tabindex=\"0\"]').focus()")
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert "self_attn.v_proj [default] layer 1: no gradient" in page.find_element("id", "cell").text
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.execute_script("return document.activeElement.node.path") == "base_model.model.model.layers.1.self_attn.v_proj"


def test_search_and_filters_show_matches_and_the_way_to_them(opened, broken_report):
    page = opened(broken_report)
    page.find_element("id", "search").send_keys("o_proj")
    wait(lambda: page.find_element("id", "matches").text == "4 modules")
    assert "o_proj" in rows(page)
    assert "mlp" not in rows(page)
    page.find_element("id", "search").clear()
    page.find_element("id", "search").send_keys(" ")
    page.find_element("id", "only-flagged").click()
    wait(lambda: page.find_element("id", "matches").text == "8 modules")
    page.find_element("id", "only-flagged").click()
    wait(lambda: page.find_element("id", "matches").text == "")
    page.find_element("id", "only-adapters").click()
    wait(lambda: page.find_element("id", "matches").text == "8 modules")


def test_a_difference_is_marked_told_and_filtered(opened, make_llama, make_report):
    theirs = make_report(make_llama(5, ranks=lambda index: 4 if index == 1 else 8))
    page = opened(make_report(make_llama()), View("tree", other=theirs, other_name="other.json", columns=("params", "rank")))
    assert page.find_element("id", "compared").text.startswith("compared with other.json: 1 added, 2 changed; adapter layers 8 → 10")
    page.find_element("id", "only-changed").click()
    wait(lambda: page.find_element("id", "matches").text == "3 modules")
    assert "+" in texts(page, "#modules .change-added")
    assert "now r 4 instead of 8, lora_alpha 8 instead of 16" in texts(page, "#modules .change-changed")
    assert texts(page, "#heads span") == ["module", "parameters", "trainable", "rank"]
    assert "8" in texts(page, "#modules .rank")


def test_a_group_of_added_blocks_is_marked_as_added(opened, make_llama, make_report):
    page = opened(make_report(make_llama(2)), View("tree", other=make_report(make_llama(5))))
    marked = [row.text for row in page.find_elements("css selector", "#modules .row") if "2–4 ×3" in row.text]
    assert len(marked) == 1
    assert marked[0].splitlines()[1].startswith("+ 2–4 ×3 LlamaDecoderLayer")
    assert "~" not in marked[0]
    assert "+ added, - removed, ~ changed." in page.find_element("css selector", "#tree .hint").text


def test_a_folded_row_tells_of_the_adapters_inside(opened, make_llama, make_trace, make_report):
    structure = make_llama(4)
    rows = tuple(replace(layer, merged=True) if ".3." in layer.path else layer for layer in structure.adapter_layers)
    page = opened(make_report(replace(structure, adapter_layers=rows)))
    told = {row.find_element("class name", "name").text: row.text for row in page.find_elements("css selector", "#modules .row")}
    assert "◆ 6 inside" in told["0–2 ×3"]
    assert "◇ 2 inside" in told["3"]
    assert "inside" not in told["(root)"]
    page.find_element("id", "collapse").click()
    assert "◆ 6 inside, ◇ 2 inside" in page.find_element("css selector", "#modules > li > ul > li > .row").text


def test_coverage_is_a_bar_per_sort_of_layer_filled_where_it_is_adapted(opened, make_llama, make_report):
    rows = (sort_of_layer("q_proj", 3000, 3000), sort_of_layer("o_proj", 1000, 500))
    page = opened(make_report(replace(make_llama(4), coverage=rows)))
    assert "Coverage: layers with 87.5% of 4,000 parameters carry an adapter" in texts(page, "#coverage h3")
    wide, narrow = (bar.size["width"] for bar in page.find_elements("css selector", ".bar"))
    full, half = (bar.size["width"] for bar in page.find_elements("css selector", ".filled"))
    assert abs(wide / narrow - 3) < 0.1
    assert abs(full / (wide - 2) - 1) < 0.05
    assert abs(half / (narrow - 2) - 0.5) < 0.05
    assert page.find_elements("css selector", ".bar")[1].get_attribute("aria-label") == "25.0% of the parameters, 12.5% with adapters"


def sort_of_layer(name, parameters, adapted):
    tower, layers = "base_model.model.model", tuple(f"base_model.model.model.layers.{index}.{name}" for index in range(4))
    carried = (Carried("default", 4, (0, 1, 2, 3), (8,), adapted),)
    place = (tower, f"{tower}.layers", "LlamaDecoderLayer", "LlamaAttention", name, "linear")
    return Coverage(*place, layers, layers, (0, 1, 2, 3), (0, 1, 2, 3), parameters, adapted, carried)


def test_a_long_or_broken_name_leaves_the_map_in_view_and_leads_to_its_module(opened, make_llama, make_trace, make_report):
    """Three hundred letters and a line break: the row is cut, its title is whole, and its path is found as it is."""
    name = "q_proj\n" + "n" * 300
    structure = make_llama(2)
    renamed = {
        rows: tuple(
            replace(
                row,
                path=row.path.replace("q_proj", name),
                **({"module": row.module.replace("q_proj", name)} if rows == "parameters" else {}),
            )
            for row in getattr(structure, rows)
        )
        for rows in ("modules", "parameters")
    }
    layers = tuple(
        replace(
            layer,
            path=layer.path.replace("q_proj", name),
            base_path=layer.base_path.replace("q_proj", name),
            parameters=tuple(path.replace("q_proj", name) for path in layer.parameters),
        )
        for layer in structure.adapter_layers
    )
    structure = replace(structure, **renamed, adapter_layers=layers)
    page = opened(make_report(structure, make_trace(structure)))
    cell = page.find_element("css selector", ".map td[data-state]")
    assert cell.location["x"] < 700
    assert page.find_element("css selector", ".map tbody th").get_attribute("title").startswith("self_attn.q_proj\\u{a}nnn")
    cell.click()
    assert page.execute_script("return document.activeElement.node.n") == name


def test_the_map_keeps_its_colours_on_paper(opened, healthy_report):
    page = opened(healthy_report)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    cell = page.find_element("css selector", ".map td[data-state]")
    assert page.execute_script("return getComputedStyle(arguments[0]).printColorAdjust", cell) == "exact"
    assert not page.find_element("css selector", ".tools").is_displayed()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_glob_that_matches_nothing_says_so(opened, broken_report):
    page = opened(broken_report, View("tree", match="nothing"))
    assert "No module path matches." in page.find_element("id", "tree").text


def test_the_tree_is_walked_with_the_keyboard(opened, broken_report):
    page = opened(broken_report)
    page.execute_script("document.querySelector('#modules [tabindex=\"0\"]').focus()")

    def press(*keys):
        for key in keys:
            page.switch_to.active_element.send_keys(key)
        return page.execute_script("const at = document.activeElement; return [at.node.path, at.getAttribute('aria-expanded')]")

    assert press(Keys.ARROW_LEFT) == ["", "false"]
    assert press(Keys.ARROW_RIGHT) == ["", "true"]
    assert press(Keys.ARROW_DOWN) == ["base_model", "false"]
    assert press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)[0] == "base_model.model"
    assert press(Keys.HOME)[0] == ""
    assert press(Keys.END)[0] == "base_model.model"


def test_a_path_is_copied(opened, broken_report):
    page = opened(broken_report)
    page.execute_script(
        "window.copied = []; Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { copied.push(text); }}})"
    )
    page.find_element("css selector", ".finding button.link").click()
    page.switch_to.active_element.send_keys("c")
    assert page.execute_script("return copied") == ["base_model.model.model.layers.0.self_attn.q_proj"]


def test_a_fix_is_copied_and_the_rule_is_explained_in_place(opened, broken_report):
    explained = Outcome("PI304", "reentrant-checkpoint-without-grad-input", "found", help="A title.\n\nWhy it matters.")
    page = opened(replace(broken_report, outcomes=(explained,)))
    page.execute_script(
        "window.copied = []; Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { copied.push(text); }}})"
    )
    page.find_element("css selector", ".copy-fix").click()
    assert page.execute_script("return copied") == [broken_report.findings[0].fix]
    page.find_element("css selector", ".finding summary").click()
    assert texts(page, ".finding details p") == ["A title.", "Why it matters."]
    assert page.find_element("css selector", "#rule-table a").get_attribute("href").endswith("#finding-PI304")


def test_the_answer_comes_first_and_each_step_says_what_it_was_used_for(opened, broken_report):
    tried = replace(broken_report.findings[0], tried_in=2)
    page = opened(replace(broken_report, findings=(tried,), steps=("calls, gradients and update", "the fix of PI304")))
    assert texts(page, "#answer")[0].startswith("nothing trains: ")
    first, second = texts(page, "#step-list li")
    assert first == "calls, gradients and update"
    assert second.startswith("the fix of PI304: PI304 16/16 parameters train")
    assert not opened(broken_report).find_element("id", "steps").is_displayed()


def test_hostile_names_are_shown_and_not_run(opened, broken_report):
    hostile = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\x1b[31m\u202e"
    finding = replace(broken_report.findings[0], message=hostile)
    page = opened(replace(broken_report, source=hostile, findings=(finding,)))
    assert page.find_element("id", "source").text == "<img src=x onerror=alert(1)></script><script>alert(2)</script>\\u{1b}[31m\\u{202e}"
    assert page.find_elements("css selector", "img") == []


def test_fifty_thousand_modules_open_and_search_quickly(opened, make_llama, make_trace, make_report):
    structure = make_llama(2400)
    assert len(structure.modules) > 50_000
    trace = make_trace(structure, "none")
    started = time.monotonic()
    page = opened(make_report(structure, replace(trace, gradients=(GradientInfo("x", None, None, "ok"),))))
    assert len(page.find_elements("css selector", "[role=treeitem]")) < 500
    page.find_element("id", "search").send_keys("layers.2399.self_attn.q_proj.lora_A.default")
    wait(lambda: page.find_element("id", "matches").text == "1 module")
    assert "default" in rows(page)
    assert time.monotonic() - started < 30


def test_one_expert_of_thousands_is_found_from_its_finding_and_its_cell(opened, make_experts, make_trace, make_report):
    """An adapter on each Linear of each expert: long lists of equal blocks inside of blocks, and one that is dead."""
    structure = make_experts(8, 512)
    assert len(structure.modules) > 50_000
    dead = "base_model.model.blocks.5.experts.300.w2"
    trace = make_trace(structure)
    trace = replace(trace, gradients=tuple(replace(row, state="none", norm=None) if row.layer == dead else row for row in trace.gradients))
    finding = Finding("PI309", "no-gradient", Severity.ERROR, "1 adapter layer gets no gradient", (dead,), fix="route a token to it")
    started = time.monotonic()
    page = opened(make_report(structure, trace, [finding]))
    assert page.execute_script("return performance.timing.loadEventEnd - performance.timing.navigationStart") < 5000
    assert len(page.find_elements("css selector", "[role=treeitem]")) < 500
    assert len(page.find_elements("css selector", ".map td.state-none, .map td.state-partial")) == 1
    page.find_element("css selector", ".finding li button").click()
    assert texts(page, "#modules .row.hit .name") == ["w2"]
    page.find_element("id", "search").send_keys("experts.300")
    wait(lambda: page.find_element("id", "matches").text == "104 modules")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("width", [400, 1400])
def test_columns_without_room_are_told_below_the_names(opened, broken_report, width):
    page = opened(broken_report, View("tree", columns=get_args(Column)))
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    )
    wait(lambda: page.execute_script("return innerWidth") == width)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        narrowest = "return Math.min(...[...document.querySelectorAll('.label')].map((label) => label.clientWidth))"
        wait(lambda: page.execute_script(narrowest) > 100)
        cell = page.find_element("css selector", ".count.path")
        assert page.execute_script("return getComputedStyle(arguments[0], '::before').content", cell).startswith('"path')
        assert page.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", cell)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_readable_contrast(opened, broken_report, scheme):
    """At least 4.5 to 1, as WCAG AA asks of text."""
    page = opened(broken_report)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    worst = page.execute_script(CONTRAST)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert worst[0] >= 4.5, worst


CONTRAST = """
const light = (text) => {
  const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((part) => linear(part / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (!/, 0\\)$|transparent/.test(color) && !color.startsWith("color(")) return color;
  }
  return "rgb(255, 255, 255)";
};
let worst = [99, ""];
for (const element of document.querySelectorAll("body *")) {
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
  if (getComputedStyle(element).visibility === "hidden" || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName)) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < worst[0]) worst = [ratio, element.tagName + "." + element.className + " " + element.textContent.slice(0, 40)];
}
return worst;
"""
