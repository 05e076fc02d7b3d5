"""Models, batches, losses and optimizers from the user's own code."""

from __future__ import annotations

import re
import sys

import pytest
import torch

from peft_inspect.records import InspectionError


@pytest.fixture(autouse=True)
def own_modules():
    """Forget the modules and folders that a test brought in."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and "/pytest-" in (sys.modules[name].__file__ or ""):
            del sys.modules[name]


@pytest.fixture
def script(tmp_path):
    """`script(source)` writes train.py and returns its path."""

    def write(source, name="train.py"):
        path = tmp_path / name
        path.write_text(source)
        return path

    return write


def test_a_callable_in_a_file_gives_its_model_in_the_mode_it_was_handed_over(load, script):
    path = script("import torch\ndef build_model():\n    print('building')\n    return torch.nn.Linear(2, 3).eval()\n")
    subject = load(f"{path}:build_model")
    assert (subject.model.out_features, subject.model.training) == (3, False)
    assert (subject.weights, subject.source, subject.source_file) == ("user", f"{path}:build_model", str(path))
    assert subject.entry is not None
    assert (subject.entry.file, subject.entry.function) == (str(path), "build_model")
    assert path.read_text().splitlines()[subject.entry.line - 1] == subject.entry.code == "def build_model():"


@pytest.mark.parametrize(
    "returned",
    ["(net, 'tokenizer')", "['tokenizer', net]", "{'model': net, 'tokenizer': 3}", "type('Trainer', (), {'model': net})()"],
)
def test_the_one_model_in_what_is_returned_is_inspected_and_the_report_says_so(load, script, returned):
    subject = load(f"{script(f'import torch{chr(10)}net = torch.nn.Linear(2, 3){chr(10)}def load(): return {returned}')}:load")
    assert subject.model.out_features == 3
    assert "train.py:load returned a" in subject.notes[0]


def test_of_several_models_the_one_with_adapters_is_inspected(load, script):
    path = script(
        "import torch\nfrom peft import LoraConfig, get_peft_model\n"
        "def both():\n"
        "    student = get_peft_model(torch.nn.Sequential(torch.nn.Linear(2, 2)), LoraConfig(target_modules=['0']))\n"
        "    return torch.nn.Linear(1, 1), student\n"
    )
    assert type(load(f"{path}:both").model).__name__ == "PeftModel"


def test_an_optimizer_that_comes_with_the_model_is_its_optimizer_until_it_is_wrapped(load, script):
    path = script(
        "import torch\n"
        "def build():\n"
        "    model = torch.nn.Sequential(torch.nn.Linear(2, 2))\n"
        "    return model, torch.optim.SGD(model.parameters(), lr=1.0)\n"
    )
    subject = load(f"{path}:build")
    assert subject.optimizer.param_groups[0]["params"] == list(subject.model.parameters())
    assert load(f"{path}:build", lora_fields={"target_modules": "0"}).optimizer is None


def test_a_script_that_parses_its_arguments_is_imported_with_none(load, script):
    source = (
        "import argparse, torch\nparser = argparse.ArgumentParser()\nparser.add_argument('--width', type=int, {})\n"
        "width = parser.parse_args().width\ndef build(): return torch.nn.Linear(width, 1)\n"
    )
    assert load(f"{script(source.format('default=3'))}:build").model.in_features == 3
    with pytest.raises(InspectionError, match=r"SystemExit: 2 at .*train.py:4 \(width = .*__main__.*peft-inspect run .*train.py ARGUMENTS"):
        load(f"{script(source.format('required=True'), 'wants.train.py')}:build")


def test_what_the_code_prints_stays_off_stdout(load, script, capsys):
    load(f"{script('import torch; print(1)' + chr(10) + 'def build():' + chr(10) + '    print(2); return torch.nn.Linear(1, 1)')}:build")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "1\n2\n")


def test_the_folder_of_a_file_is_on_the_path_as_python_puts_it(load, script):
    script("import torch\nclass Net(torch.nn.Linear): pass\n", "my_layers.py")
    subject = load(f"{script('from my_layers import Net' + chr(10) + 'def build(): return Net(1, 1)')}:build")
    assert type(subject.model).__name__ == "Net"


def test_a_module_is_imported_from_the_working_folder(load, tmp_path, monkeypatch):
    package = tmp_path / "my_project"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(
        "import torch\nmodel = torch.nn.Linear(4, 1)\nclass Factory:\n    @staticmethod\n    def build(): return model\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load("my_project.nets:model").model.in_features == 4
    assert load("my_project.nets:Factory.build").source_file == "my_project/nets.py"


def test_model_and_batch_of_one_file_share_one_import(load, script):
    path = script(
        "import torch\nimports = []\nimports.append(1)\n"
        "def build():\n    imports.append(2); return torch.nn.Linear(1, 1)\n"
        "def batch(): return {'input': torch.tensor(imports)}\n"
        "def loss(model, batch): return model(batch['input']).sum()\n"
        "def optimizer(model): return torch.optim.SGD(model.parameters(), lr=1.0)\n"
    )
    subject = load(f"{path}:build", batch=f"{path}:batch", loss=f"{path}:loss", optimizer=f"{path}:optimizer")
    assert subject.batch["input"].tolist() == [1, 2]
    assert subject.loss.__name__ == "loss"
    assert subject.optimizer.param_groups[0]["params"] == list(subject.model.parameters())


def test_an_exception_in_the_code_comes_with_its_own_traceback_only(load, script):
    path = script("def build():\n    return helper()\ndef helper():\n    raise KeyError('layers')\n")
    with pytest.raises(InspectionError, match=r"train.py:build raised KeyError: 'layers'") as raised:
        load(f"{path}:build")
    detail = raised.value.detail
    assert detail.startswith("this is the traceback of your code:")
    assert [line.strip() for line in detail.splitlines() if line.strip().startswith("File")] == [
        f'File "{path}", line 2, in build',
        f'File "{path}", line 4, in helper',
    ]


def test_a_script_that_fails_or_leaves_on_import_is_reported_the_same_way(load, script):
    with pytest.raises(InspectionError, match=r"importing .*train.py raised ModuleNotFoundError: No module named 'no_such_thing'"):
        load(f"{script('import no_such_thing')}:build")
    with pytest.raises(InspectionError, match=r"importing .*train.py raised SystemExit: 2"):
        load(f"{script('import sys; sys.exit(2)')}:build")
    with pytest.raises(InspectionError, match=r"importing .*train.py raised SyntaxError") as raised:
        load(f"{script('def build(:')}:build")
    assert "def build(:" in raised.value.detail


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("def build_model(): ...", "build_modle", r"train.py has no 'build_modle'; the closest is 'build_model'"),
        ("def build_model(): ...", "build_model", r"build_model returned nothing: name .* or peft-inspect run .*train.py"),
        ("def build_model(): return 1, 2", "build_model", r"build_model returned a tuple"),
        ("lr = 0.1", "lr", r"lr is a float: name a torch.nn.Module or a callable that returns the one that is trained"),
        (
            "import torch\ndef build_model(): return torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)",
            "build_model",
            r"a tuple with 2 models \(Linear, Linear\): name a callable that returns the one that is trained",
        ),
        ("def build_model(config): ...", "build_model", r"called with no arguments, and takes \(config\).*peft-inspect run .*train.py"),
    ],
)
def test_what_is_no_model_is_named_for_what_it_is(load, script, source, name, message):
    with pytest.raises(InspectionError, match=message):
        load(f"{script(source)}:{name}")


def test_a_file_without_a_callable_lists_those_it_has(load, script):
    with pytest.raises(
        InspectionError,
        match=r"say which callable of .*train.py builds the model, as .*train.py:build_model: it defines build_model, Net; or inspect",
    ):
        load(str(script("def build_model(): ...\nclass Net: ...\n")))


def test_a_function_that_only_trains_is_neither_called_nor_offered(load, script):
    """The `main` of a training program would train for hours, and give no model."""
    path = script(
        "import torch\ndef main():\n    open('trained', 'w').close()\n    def inner(): return 1\n    print(inner())\n"
        "def build(): return torch.nn.Linear(1, 1)\n"
    )
    with pytest.raises(InspectionError, match=r"main trains and returns no model, so it is not called: .* or peft-inspect run .*train.py"):
        load(f"{path}:main")
    with pytest.raises(InspectionError, match=r"as .*train.py:build: it defines build;"):
        load(str(path))


def test_missing_files_and_modules_are_named(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InspectionError, match=r"there is no file nowhere.py"):
        load("nowhere.py:build")
    with pytest.raises(InspectionError, match=r"there is no module 'nowhere.at_all' in"):
        load("nowhere.at_all:build")


def test_a_script_named_like_a_loaded_module_does_not_replace_it(load, script):
    path = script("import torch\ndef build(): return torch.nn.Linear(1, 1)\n", "json.py")
    before = sys.modules["json"]
    assert isinstance(load(f"{path}:build").model, torch.nn.Linear)
    assert sys.modules["json"] is before


def test_lora_flags_wrap_the_users_model_and_refuse_a_wrapped_one(load, script):
    path = script(
        "import torch\nfrom peft import LoraConfig, get_peft_model\n"
        "def plain(): return torch.nn.Sequential(torch.nn.Linear(2, 2))\n"
        "def wrapped(): return torch.nn.Sequential(get_peft_model(plain(), LoraConfig(target_modules=['0'])))\n"
    )
    subject = load(f"{path}:plain", lora_fields={"target_modules": "0", "r": 2})
    assert type(subject.model).__name__ == "PeftModel"
    assert subject.requested == {"peft_type": "LORA", "target_modules": ["0"], "r": 2}
    with pytest.raises(InspectionError, match=r"train.py:wrapped carries an adapter already: leave out --lora"):
        load(f"{path}:wrapped", lora_fields={"target_modules": "0"})


def test_options_that_say_nothing_about_the_users_model_are_refused(load, script):
    path = script("def build(): ...")
    with pytest.raises(InspectionError, match=r"--weights has no say over a model that your own code builds"):
        load(f"{path}:build", weights="random")


def test_a_model_on_the_meta_device_is_known_to_be_weightless(load, script):
    path = script("import torch\ndef build(): return torch.nn.Linear(2, 2, device='meta')\n")
    assert load(f"{path}:build").weights == "none"


@pytest.mark.parametrize(
    ("raises", "said"),
    [
        ("raise GeneratorExit('ended')", "GeneratorExit: ended"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
        ("raise type('Own', (BaseException,), {})('mine')", "Own: mine"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})", "Mute: (its message cannot be read)"),
    ],
)
def test_whatever_ends_the_users_code_is_said_and_passes_for_no_verdict(load, script, raises, said):
    path = script(f"def build():\n    {raises}\n")
    with pytest.raises(InspectionError, match=re.escape(said)) as error:
        load(f"{path}:build")
    assert "train.py" in error.value.detail
