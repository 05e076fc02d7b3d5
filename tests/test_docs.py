"""README and docs say what is so: screens are real output, code runs, links lead somewhere."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

import peft_inspect
from peft_inspect.rules.examples import text_batch, tiny_llama

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def load_renderer():
    spec = importlib.util.spec_from_file_location("render", ROOT / "docs" / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RENDER = load_renderer()
SCREENS = [
    (page.name, block["command"], block["output"]) for page in PAGES for block in RENDER.BLOCK.finditer(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("page", "command", "shown"), SCREENS, ids=[f"{page}: {command}" for page, command, _ in SCREENS])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_screen_is_what_its_command_prints(page, command, shown, monkeypatch):
    """Where this fails: python docs/render.py."""
    monkeypatch.chdir(ROOT)
    assert RENDER.screen(command) == shown


@pytest.mark.parametrize("page", RENDER.GENERATED)
def test_a_generated_page_is_what_the_code_says(page):
    """Where this fails: python docs/render.py."""
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == RENDER.GENERATED[page]()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_python_of_the_readme_runs():
    from peft import LoraConfig, get_peft_model
    from torch.optim import AdamW

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    names = {
        "model": model,
        "batch": text_batch(),
        "optimizer": AdamW(parameter for parameter in model.parameters() if parameter.requires_grad),
    }
    exec(code, names)
    assert isinstance(names["report"], peft_inspect.Report)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_session_of_the_python_api_is_a_doctest():
    session = re.search(r"```pycon\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    test = doctest.DocTestParser().get_doctest(session, {}, "api.md", "docs/api.md", 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_github_action_is_named_by_the_tag_of_this_version():
    assert f"peft-inspect@v{peft_inspect.__version__} " in (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_of_the_project(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_ci_runs_the_test_command_of_the_readme():
    script, readme = (ROOT / ".ci" / "run").read_text(encoding="utf-8"), (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- test-command -->" in script
    assert re.search(r"<!-- test-command -->\n```bash\n.*pytest.*\n```", readme)


ZH = [(ROOT / "README.md", ROOT / "README.zh-CN.md")] + [
    (ROOT / "docs" / page.name, page) for page in sorted((ROOT / "docs" / "zh").glob("*.md"))
]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("english", "chinese"), ZH, ids=[page.name for _, page in ZH])
def test_the_commands_of_a_chinese_page_are_those_of_the_english_one(english, chinese):
    """The prose may be shorter; what is copied from it must not differ. All but two pages have every block."""
    known = [block for block in FENCED.findall(english.read_text(encoding="utf-8")) if block[0] != "text"]
    shown = [block for block in FENCED.findall(chinese.read_text(encoding="utf-8")) if block[0] != "text"]
    assert shown
    assert [block for block in shown if block not in known] == []
    if english.name not in ("README.md", "ci.md"):
        assert shown == known
