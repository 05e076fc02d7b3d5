"""Screens and exit codes. The inspection itself is replaced by a hand-made report: what it finds is tested elsewhere."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from peft_inspect.api import Report
from peft_inspect.cli import main
from peft_inspect.cli.progress import progress
from peft_inspect.diagnose import named
from peft_inspect.formats import FORMATS
from peft_inspect.project import targets
from peft_inspect.records import Finding, InspectionError, ModuleInfo, Outcome, Request, Severity, Structure
from peft_inspect.rules import all_rules
from peft_inspect.rules import page as rule_text

ROOT = Structure("Tiny", "Tiny", (ModuleInfo("", "Tiny", "other", training=True),), (), (), ())


CLEAN = (Outcome("PI112", "no-adapter", "clean"),)


def report(*findings, outcomes=CLEAN):
    return Report("tiny.py:build", ROOT, None, findings, outcomes)


def finding(severity):
    return Finding("PI103", "adapters-in-several-towers", Severity(severity), "two towers", ("",), fix="name one")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command in this process; `inspect` stands for the API."""

    def run_command(*arguments, inspect=lambda *_, **__: report()):
        monkeypatch.setattr(targets, "inspect", inspect)
        monkeypatch.setattr(sys, "argv", ["peft-inspect", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return (left.value.code or 0, *capsys.readouterr())

    return run_command


def shell(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "peft_inspect", *arguments], capture_output=True, text=True, check=False, timeout=60, **options
    )


# --- exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "severity", "code"),
    [
        (["check", "x"], None, 0),
        (["check", "x"], "warning", 0),
        (["check", "x"], "error", 1),
        (["gradcheck", "x"], "error", 1),
        (["tree", "x"], "error", 0),
        (["tree", "x", "--fail-on", "note"], "note", 1),
        (["check", "x", "--fail-on", "warning"], "warning", 1),
        (["check", "x", "--fail-on", "never"], "error", 0),
    ],
)
def test_the_exit_code_says_whether_something_was_found(call, arguments, severity, code):
    found = [finding(severity)] if severity else []
    assert call(*arguments, inspect=lambda *_, **__: report(*found))[0] == code


def fails_with(error):
    def inspect(*_, **__):
        raise error

    return inspect


def test_what_the_user_can_mend_is_one_message_and_exit_2(call):
    error = InspectionError("no file train.py; the closest is trane.py", detail='  File "trane.py", line 3\nNameError: x\x1b[2J')
    assert call("check", "train.py:build", inspect=fails_with(error)) == (
        2,
        "",
        'peft-inspect: no file train.py; the closest is trane.py\n  File "trane.py", line 3\nNameError: x\\x1b[2J\n',
    )


def test_the_traceback_is_shown_only_with_debug(call):
    error = InspectionError("it broke")
    assert "Traceback" not in call("check", "x", inspect=fails_with(error))[2]
    assert "Traceback" in call("check", "x", "--debug", inspect=fails_with(error))[2]


def test_an_error_of_our_own_says_so_and_exits_2(call):
    code, out, error = call("check", "x", inspect=fails_with(RuntimeError("unforeseen")))
    assert (code, out) == (2, "")
    assert error.startswith("peft-inspect: internal error: RuntimeError: unforeseen")


def test_ctrl_c_exits_130_also_when_a_library_disguises_it(call):
    assert call("check", "x", inspect=fails_with(KeyboardInterrupt()))[:2] == (130, "")
    disguised = ImportError("numpy failed to import")
    disguised.__cause__ = KeyboardInterrupt()
    assert call("check", "x", inspect=fails_with(disguised))[0] == 130


def test_user_code_that_exits_with_0_does_not_pass_for_a_clean_report(tmp_path):
    (tmp_path / "train.py").write_text("import sys\n\ndef build():\n    sys.exit(0)\n")
    done = shell("check", "train.py:build", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "sys.exit(0)" in done.stderr


def test_a_crashed_rule_exits_2_and_the_report_shows_it(call):
    crashed = (Outcome("PI101", "unmatched-target-module", "crashed", "KeyError: 'x'"),)
    code, out, error = call("check", "x", inspect=lambda *_, **__: report(outcomes=crashed))
    assert code == 2
    assert "crashed: PI101" in out
    assert "the report is incomplete" in error


# --- bad usage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tree", "x", "--nope"], "--nope"),
        (["nope"], "nope"),
        (["tree", "x", "--format", "sarif"], "'sarif' is none of text, json, html, svg, markdown"),
        (["tree", "x", "--columns", "params,colour"], "'colour' is none of"),
        (["tree", "x", "--depth", "-1"], "--depth"),
        (["check", "x", "--weights", "some"], "'some' is none of none, random, pretrained"),
        (["check", "x", "--fail-on", "fatal"], "'fatal' is none of"),
        (["tree", "x", "--diff", "y", "--format", "json"], "drawn as text, html, svg or markdown"),
        (["check", "x", "--set", "use_dora"], "not of the form KEY=VALUE"),
        (["check", "x", "-r", "eight"], "--rank"),
        (["check", "x", "-o", "/nowhere/report.txt"], "no folder /nowhere"),
        (["check", "x", "--select", "PI999"], "no rule is called 'PI999'"),
        (["explain", "adapter-disabled"], "the closest are adapters-disabled"),
    ],
)
def test_bad_usage_is_said_on_stderr_without_importing_torch(arguments, says):
    program = f"""
import sys
sys.argv = {["peft-inspect", *arguments]!r}
from peft_inspect.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert says in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


# --- what is asked for ---------------------------------------------------------------------------


def asked(call, *arguments):
    requests = []

    def inspect(request, depth, **options):
        requests.append((request, depth, options))
        return report()

    assert call(*arguments, inspect=inspect)[0] == 0
    return requests[0]


def test_all_options_reach_the_request(call):
    request, depth, options = asked(
        call,
        *["gradcheck", "arch:llama", "--lora", "lora.yaml", "--target-modules", "q_proj, v_proj", "--target-parameters", "experts.up"],
        *["--exclude-modules", ".*vision.*", "--modules-to-save", "head", "-r", "16", "--lora-alpha", "32", "--task-type", "CAUSAL_LM"],
        *["--set", "use_dora=true", "--set", "init_lora_weights=gaussian", "--set", "layers_to_transform=[0, 1]"],
        *[
            "--config-set",
            "num_hidden_layers=2",
            "--config-set",
            "text_config.hidden_size=8",
            "--adapter",
            "out",
            "--base",
            "b",
            "--base-class",
            "C",
        ],
        *[
            "--weights",
            "random",
            "--reduce",
            "--batch",
            "b.json",
            "--loss",
            "l.py:loss",
            "--optimizer",
            "o.py:opt",
            "--text",
            "hi",
            "--image",
            "i.png",
        ],
        *["--audio", "a.wav", "--trust-remote-code", "--select", "PI1,PI304", "--select", "PI2", "--ignore", "PI103", "--no-verify"],
    )
    assert request == Request(
        model="arch:llama",
        lora="lora.yaml",
        lora_fields={
            "target_modules": ["q_proj", "v_proj"],
            "target_parameters": ["experts.up"],
            "exclude_modules": ".*vision.*",
            "modules_to_save": ["head"],
            "r": 16,
            "lora_alpha": 32,
            "task_type": "CAUSAL_LM",
            "use_dora": True,
            "init_lora_weights": "gaussian",
            "layers_to_transform": [0, 1],
        },
        config_fields={"num_hidden_layers": 2, "text_config.hidden_size": 8},
        adapter="out",
        base="b",
        base_class="C",
        weights="random",
        reduce=True,
        batch="b.json",
        loss="l.py:loss",
        optimizer="o.py:opt",
        text="hi",
        image="i.png",
        audio="a.wav",
        trust_remote_code=True,
    )
    assert depth == "gradcheck"
    assert options["select"] == ("PI1", "PI304", "PI2")
    assert options["ignore"] == {"PI103": "ignored on the command line"}
    assert options["verify"] is False


@pytest.mark.parametrize(
    ("value", "modules"),
    [
        ("q_proj", ["q_proj"]),
        ("a,b", ["a", "b"]),
        ("all-linear", "all-linear"),
        (r".*\.(q|v)_proj", r".*\.(q|v)_proj"),
        ("mlp.up", ["mlp.up"]),
    ],
)
def test_target_modules_are_names_all_linear_or_a_regex(call, value, modules):
    assert asked(call, "tree", "x", "--target-modules", value)[0].lora_fields == {"target_modules": modules}


def test_the_model_may_come_from_the_lora_file(call):
    assert asked(call, "check", "--lora", "axolotl.yaml")[0].model is None


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        ("other.json", {"lora": "other.json", "lora_fields": {}}),
        ("adapter", {"adapter": "adapter", "lora_fields": {}}),
        ("arch:bert", {"model": "arch:bert"}),
        ("model/config.json", {"model": "model/config.json"}),
    ],
)
def test_a_difference_is_to_another_lora_config_adapter_or_model(call, tmp_path, monkeypatch, other, changed):
    monkeypatch.chdir(tmp_path)
    for folder in ("adapter", "model"):
        (tmp_path / folder).mkdir()
    for name in ("other.json", "adapter/adapter_config.json", "model/config.json"):
        (tmp_path / name).write_text("{}")
    requests = []

    def inspect(request, *_, **__):
        requests.append(request)
        return report()

    assert call("tree", "arch:llama", "-r", "8", "--diff", other, inspect=inspect)[0] == 0
    assert requests == [Request("arch:llama", lora_fields={"r": 8}), replace(Request("arch:llama", lora_fields={"r": 8}), **changed)]


# --- where the report goes -----------------------------------------------------------------------


def test_json_has_stdout_to_itself_whatever_the_inspected_code_prints(call):
    def chatty(*_, **__):
        print("loading …")
        os.system("echo from below")
        return report()

    code, out, error = call("check", "x", "--format", "json", inspect=chatty)
    assert code == 0
    assert json.loads(out)["schema"] == 1
    assert "loading …" in error


def test_what_libraries_deprecate_in_each_other_is_not_shown():
    example = Path(__file__).parent.parent / "docs/examples/speech_emotion.py"
    done = shell("tree", f"{example}:build_healthy")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_is_complete_or_not_there(call, tmp_path, monkeypatch):
    target = tmp_path / "report.json"
    assert call("check", "x", "--format", "json", "-o", str(target))[:2] == (0, "")
    assert json.loads(target.read_text())["schema"] == 1
    before = target.read_bytes()
    assert call("check", "x", "--format", "json", "-o", str(target), inspect=fails_with(InspectionError("no")))[0] == 2
    broken = replace(report(), structure=None)
    assert call("check", "x", "--format", "json", "-o", str(target), inspect=lambda *_, **__: broken)[0] == 2
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_device_is_written_to_and_stays_a_device(call):
    assert call("check", "x", "-o", "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m peft_inspect explain | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_knows_only_ascii_gets_ascii(tmp_path):
    done = shell("explain", "PI205", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.returncode == 0
    assert done.stdout.isascii()


# --- the rest ------------------------------------------------------------------------------------


def test_version_names_the_libraries():
    lines = shell("--version").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["peft-inspect", "python", "torch", "transformers", "peft"]


@pytest.mark.parametrize("command", [[], ["tree"], ["gradcheck"], ["check"], ["explain"]])
def test_help_fits_80_columns(command):
    done = shell(*command, "--help", env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_names_values_as_people_do_and_cuts_no_sentence():
    assert "..." not in shell("--help", env={**os.environ, "COLUMNS": "80"}).stdout.partition("Commands:")[2]
    for command in ("tree", "gradcheck", "check", "explain"):
        text = shell(command, "--help").stdout
        assert not [line for line in text.splitlines() if "<" in line.partition("  ")[0]], command
        assert "<str>" not in text


def test_help_lists_the_formats_that_the_command_has():
    for command, formats in FORMATS.items():
        assert ", ".join(formats) in " ".join(shell(command, "--help").stdout.split()), command


def test_the_options_are_listed_under_headings():
    text = shell("check", "--help").stdout
    places = [text.index(f"\n{heading}:\n") for heading in ("Argument", "LoRA", "Model", "Run", "Report", "Options")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("ex", "explain"),
        ("check --format s", "sarif"),
        ("tree arch:llama --format s", "svg"),
        ("gradcheck arch:llama --fail-on w", "warning"),
        ("gradcheck arch:llama --weights r", "random"),
        ("check --ignore PI315", "PI315"),
        ("explain no-gradient", "no-gradient"),
        ("check --format x", ""),
    ],
)
def test_the_shell_completes_commands_and_values(words, offered):
    asks = {"COMP_WORDS": f"peft-inspect {words}", "COMP_CWORD": str(len(words.split())), "_PEFT_INSPECT_COMPLETE": "complete_bash"}
    assert shell(env={**os.environ, **asks}).stdout.strip() == offered


def test_explain_lists_all_rules_and_prints_the_page_of_one():
    listed = shell("explain", env={**os.environ, "COLUMNS": "200"}).stdout
    assert all(f"{rule.code} {rule.severity.value:<7} {rule.name}" in listed for rule in all_rules())
    lines = shell("explain", env={**os.environ, "COLUMNS": "80"}).stdout.splitlines()
    assert all(f"{rule.code} {rule.name}" in "\n".join(lines) for rule in all_rules())
    assert (len(lines) <= 50, max(map(len, lines)) <= 80) == (True, True)
    page = shell("explain", "adapters-disabled").stdout
    assert page == shell("explain", "PI205").stdout
    assert rule_text(named(("PI205",))[0]).splitlines()[0] in page
    assert "def broken() -> Example:" in page
    assert "\ndef fixed() -> Example:" in shell("explain", "PI205", env={**os.environ, "COLUMNS": "40"}).stdout


class Terminal(StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal_and_gone_afterwards(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress() as step:
        step("verifying fix 2 of 3: [red]\x1b[31m")
        time.sleep(0.3)
    shown = sys.stderr.getvalue()
    assert "verifying fix 2 of 3: [red]\\x1b[31m …" in shown
    assert shown.endswith("\x1b[2K")  # the line is wiped


def test_progress_is_silent_in_a_pipe(monkeypatch):
    monkeypatch.setattr(sys, "stderr", StringIO())
    with progress() as step:
        step("building the model")
    assert sys.stderr.getvalue() == ""


def test_ctrl_c_while_libraries_are_imported_is_immediate_and_clean(tmp_path):
    """A real process, a real signal, in the middle of the user's own code."""
    (tmp_path / "slow.py").write_text(
        "import atexit, sys, time\n"
        "atexit.register(print, 'tidied', file=sys.stderr)\n"
        "print('waiting', file=sys.stderr, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "peft_inspect", "check", f"{tmp_path / 'slow.py'}:build"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # in the background it is ignored
    )
    assert "waiting\n" in iter(process.stderr.readline, "")
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in error
    assert "tidied\n" in error


def test_ctrl_c_while_the_command_itself_is_imported_is_clean():
    program = (
        "import os, signal, sys\n"
        "from peft_inspect.__main__ import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "peft-inspect: interrupted\n")


@pytest.mark.parametrize("hostile", ["\n::error file=a.py::x", "\n \t::set-env name=A::x", "##[error]x", "\x1b[2J", "\r::stop-commands::x"])
@pytest.mark.parametrize("kind", [InspectionError, ValueError])
def test_an_error_gives_no_orders_to_a_terminal_or_a_ci_runner(call, hostile, kind):
    def inspect(*_, **__):
        raise kind(f"there is no {hostile}")

    code, _, err = call("check", "x", inspect=inspect)
    assert code == 2
    assert not [line for line in err.splitlines() if line.lstrip().startswith("::") or "##[" in line]
    assert "\x1b" not in err


def test_an_error_does_not_repeat_megabytes(call):
    def inspect(*_, **__):
        raise InspectionError("there is no " + "a" * 5_000_000, detail="b" * 5_000_000)

    code, _, err = call("check", "x", inspect=inspect)
    assert code == 2
    assert len(err) < 30_000
    assert "characters left out" in err


STREAMS = [
    (["--help"], ">/dev/full", 2),
    (["explain"], ">/dev/full", 2),
    (["explain", "PI304"], ">&-", 0),
    (["explain", "PI999"], "2>&-", 2),
    (["explain", "PI999"], "2>/dev/full", 2),
    (["--no-such-option"], "2>/dev/full", 2),
]


@pytest.mark.parametrize(("arguments", "redirected", "code"), STREAMS, ids=[f"{' '.join(args)} {where}" for args, where, _ in STREAMS])
def test_a_stream_that_takes_nothing_is_no_traceback_and_no_verdict(arguments, redirected, code):
    """Where nobody listens the command ends quietly; where what was asked for could not be written, with 2."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m peft_inspect "$@" {redirected}', sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def test_code_that_ends_the_process_does_not_read_as_clean(tmp_path):
    (tmp_path / "train.py").write_text("import os\n\ndef build():\n    os._exit(0)\n")
    done = shell("check", "train.py:build", cwd=tmp_path)
    assert done.returncode == 2
    assert "SystemExit: 0" in done.stderr
