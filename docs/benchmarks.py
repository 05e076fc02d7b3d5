"""Print the tool's times and memory as ratios, each measured beside its baseline in the same run.

    python docs/benchmarks.py                 # all
    python docs/benchmarks.py help deepseek   # some

Every ratio is the median of interleaved pairs, so that a busy machine slows both sides alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

IMPORTS = [sys.executable, "-c", "import torch, transformers, peft"]
TOOL = [sys.executable, "-m", "peft_inspect"]
ALL_LINEAR = ["--target-modules", "all-linear"]
LLAMA_405B = {
    "num_hidden_layers": 126,
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_attention_heads": 128,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident megabytes of a whole process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise SystemExit(errors.decode())
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def against(command: list[str], baseline: list[str], repeat: int) -> str:
    """Ratio of times and difference in peak memory, in interleaved pairs after one of each to warm the disk cache."""
    measured(baseline), measured(command)
    pairs = [(measured(baseline), measured(command)) for _ in range(repeat)]
    ratio = statistics.median(ran[0] / base[0] for base, ran in pairs)
    more = statistics.median(ran[1] - base[1] for base, ran in pairs)
    seconds = statistics.median(ran[0] for _, ran in pairs)
    return f"{ratio:.2f} times the baseline ({seconds:.2f} s), {more:+.0f} MB"


def configured(values: dict[str, int]) -> list[str]:
    return [part for key, value in values.items() for part in ("--config-set", f"{key}={value}")]


def help_text(repeat: int) -> str:
    return against([*TOOL, "--help"], [sys.executable, "-c", "import typer, rich"], repeat)


def deepseek(repeat: int) -> str:
    return against([*TOOL, "gradcheck", "arch:deepseek_v3", *ALL_LINEAR], IMPORTS, repeat)


def deepseek_tree(repeat: int) -> str:
    return against([*TOOL, "tree", "arch:deepseek_v3", *ALL_LINEAR], IMPORTS, repeat)


def llama_405b(repeat: int) -> str:
    return against([*TOOL, "gradcheck", "arch:llama", *ALL_LINEAR, *configured(LLAMA_405B)], IMPORTS, repeat)


def depth(repeat: int) -> str:
    """Trace time of 126 layers against 16: linear growth is 7.9."""
    command = [*TOOL, "gradcheck", "arch:llama", *ALL_LINEAR, "--format", "json"]

    def trace_seconds(layers: int) -> float:
        report = subprocess.run(
            [*command, *configured({**LLAMA_405B, "num_hidden_layers": layers})], capture_output=True, check=True
        ).stdout
        return json.loads(report)["timings"]["trace_s"]

    ratio = statistics.median(trace_seconds(126) / trace_seconds(16) for _ in range(repeat))
    return f"{ratio:.1f} times the trace time of 16 layers"


def deep_tree(repeat: int) -> str:
    """CPU seconds of the whole process, imports included."""
    command = [*TOOL, "tree", "arch:llama", *ALL_LINEAR, *configured({"num_hidden_layers": 1000})]

    def cpu_seconds() -> float:
        before = os.times()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return f"{statistics.median(cpu_seconds() for _ in range(repeat)):.1f} s CPU"


LLAMA_70B = {
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
ADAPTER = """
import sys
from pathlib import Path
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM
folder, *values = sys.argv[1:]
config = LlamaConfig(**{name: int(value) for name, value in (pair.split("=") for pair in values)})
with torch.device("meta"):
    model = LlamaForCausalLM(config)
lora = LoraConfig(target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
model = get_peft_model(model, lora, low_cpu_mem_usage=True)
tensors = {key: torch.randn(value.shape, dtype=torch.bfloat16) for key, value in get_peft_model_state_dict(model).items()}
model.base_model.model.config.save_pretrained(Path(folder, "base"))
model.peft_config["default"].save_pretrained(Path(folder, "adapter"))
save_file(tensors, Path(folder, "adapter", "adapter_model.safetensors"))
"""


def adapter(repeat: int) -> str:
    """Check the file of an adapter of the Llama-3-70B shape against a base that is built without weights."""
    with tempfile.TemporaryDirectory() as folder:
        values = [f"{key}={value}" for key, value in LLAMA_70B.items()]
        subprocess.run([sys.executable, "-W", "ignore", "-c", ADAPTER, folder, *values], check=True)
        base, saved = Path(folder, "base"), Path(folder, "adapter")
        return against([*TOOL, "check", str(base), "--adapter", str(saved), "--select", "PI4"], IMPORTS, repeat)


DRAWING = """
import os, sys, time
from pathlib import Path
from peft_inspect.api import inspect
from peft_inspect.cli.output import Output
from peft_inspect.formats import View, writer
from peft_inspect.records import Request
width, *values = sys.argv[1:]
fields = {name: int(value) for name, value in (pair.split("=") for pair in values)}
report = inspect(Request("arch:llama", config_fields=fields, lora_fields={"target_modules": "all-linear"}), "tree")
draw = writer("tree", "text", View("tree", width=int(width), color=True))
started = time.process_time()
Output(Path(os.devnull)).write(lambda out: draw(report, out))
print(time.process_time() - started)
"""


def drawing(repeat: int) -> str:
    """CPU seconds that drawing adds to building once rich is imported, and the lines on the screen."""
    values = [f"{key}={value}" for key, value in LLAMA_70B.items()]
    told = []
    for width in ("80", "200"):
        draw = [sys.executable, "-W", "ignore", "-c", DRAWING, width, *values]
        seconds = [float(subprocess.run(draw, capture_output=True, check=True).stdout) for _ in range(repeat)]
        show = [*TOOL, "tree", "arch:llama", *ALL_LINEAR, *configured(LLAMA_70B)]
        screen = subprocess.run(show, capture_output=True, check=True, text=True, env={**os.environ, "COLUMNS": width}).stdout
        told.append(f"{statistics.median(seconds):.2f} s, {len(screen.splitlines())} lines at {width} columns")
    return "; ".join(told)


STEP = """
import statistics, sys, time, warnings
warnings.simplefilter("ignore")
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
import peft_inspect
torch.manual_seed(0)
torch.set_num_threads(1)
shape = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 12, "num_attention_heads": 8, "vocab_size": 12000}
model = get_peft_model(LlamaForCausalLM(LlamaConfig(**shape)), LoraConfig(target_modules="all-linear")).train()
ids = torch.randint(0, 12000, (1, 128))
batch = {"input_ids": ids, "labels": ids}

def bare():
    model(**batch).loss.backward()
    model.zero_grad(set_to_none=True)

def gradcheck():
    peft_inspect.gradcheck(model, batch)

def check():
    peft_inspect.check(model, batch)

def seconds(call):
    started = time.process_time()
    call()
    return time.process_time() - started

for call in (bare, gradcheck, check):
    call()
rounds = [[seconds(call) for call in (bare, gradcheck, check)] for _ in range(11)]
print(*(statistics.median(times[at] / times[0] for times in rounds) for at in (1, 2)))
"""


def in_process(program: str) -> str:
    """What a program prints, run from a file as a user's would be."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(program)
        file.flush()
        return subprocess.run([sys.executable, file.name], capture_output=True, check=True, text=True).stdout


def step(repeat: int) -> str:
    """The whole public calls on a healthy Llama of 50 million parameters with 84 adapter layers, against the bare step, 128 tokens."""
    runs = [tuple(map(float, in_process(STEP).split())) for _ in range(repeat)]
    inspected, checked = (statistics.median(ratios) for ratios in zip(*runs, strict=True))
    return f"gradcheck {inspected:.2f} times, check {checked:.2f} times the bare forward and backward"


MEMORY = """
import resource, sys, torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from peft_inspect.load import live
from peft_inspect.structure import read_structure
from peft_inspect.trace import run_trace
shape = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8, "vocab_size": 8000}
model = get_peft_model(LlamaForCausalLM(LlamaConfig(**shape)), LoraConfig(target_modules="all-linear"))
ids = torch.randint(0, 8000, (4, 512))
batch = {"input_ids": ids, "labels": ids}
if sys.argv[1] == "bare":
    model(**batch).loss.backward()
else:
    subject = live(model, batch=batch, loss=None, optimizer=None, adapter=None)
    run_trace(subject, read_structure(subject))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory(repeat: int) -> str:
    """Peak memory of a process that makes one watched step, against one that makes the bare step; activations fill most of it."""

    def peak(which: str) -> float:
        run = [sys.executable, "-W", "ignore", "-c", MEMORY, which]
        return float(subprocess.run(run, capture_output=True, check=True).stdout)

    ratios = [peak("watched") / peak("bare") for _ in range(repeat)]
    return f"{statistics.median(ratios):.2f} times the peak of the bare forward and backward"


TRAINING = """
import statistics, tempfile, time, warnings
warnings.simplefilter("ignore")
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from peft_inspect.integrations.transformers import PeftInspectCallback
shape = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "num_attention_heads": 8, "vocab_size": 8000}
data = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 8000, (64, 64))]
arguments = TrainingArguments(tempfile.mkdtemp(), max_steps=10, per_device_train_batch_size=2, use_cpu=True,
                              save_strategy="no", logging_strategy="no", disable_tqdm=True, report_to=[])

class Clock(TrainerCallback):
    def on_train_begin(self, *_, **__):
        self.seconds = []
    def on_step_begin(self, *_, **__):
        self.started = time.process_time()
    def on_step_end(self, *_, **__):
        self.seconds.append(time.process_time() - self.started)

def steps(*callbacks):
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**shape)), LoraConfig(target_modules="all-linear"))
    clock = Clock()
    Trainer(model, arguments, train_dataset=data, callbacks=[*callbacks, clock]).train()
    return clock.seconds

def once(first=False):
    bare = steps() if first else None
    checked = steps(PeftInspectCallback())
    bare = bare or steps()
    return checked[0] / bare[0], statistics.median(checked[1:]) / statistics.median(bare[1:])

once()
print(*(statistics.median(ratios) for ratios in zip(*(once(first=run % 2) for run in range(10)))))
"""


def training(repeat: int) -> str:
    """A Trainer's steps with the callback against those without: the first, which is watched, and those that follow."""
    runs = [tuple(map(float, in_process(TRAINING).split()[-2:])) for _ in range(repeat)]
    first, later = (statistics.median(ratios) for ratios in zip(*runs, strict=True))
    return f"the watched step {first:.2f} times, later steps {later:.2f} times those of a Trainer without it"


PROGRAM_STEP = (
    STEP[: STEP.index("def bare")]
    + """
optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-5)

def bare():
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()

def watched():
    with peft_inspect.watch():
        bare()

def seconds(call):
    started = time.process_time()
    call()
    return time.process_time() - started

for call in (bare, watched):
    call()
print(statistics.median(seconds(watched) / seconds(bare) for _ in range(11)))
"""
)
START = "import torch, transformers, peft\nprint(sum(torch.ones(3)))\n"


def watched_step(repeat: int) -> str:
    """The first step of a program under watch, report included, on the same Llama, against the bare step with its optimizer."""
    return f"{statistics.median(float(in_process(PROGRAM_STEP)) for _ in range(repeat)):.2f} times"


def start_up(repeat: int) -> str:
    """`peft-inspect run` of a program that imports and makes no step, against the program alone: CPU time of the whole processes."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(START)
        file.flush()
        alone, run = [sys.executable, file.name], [sys.executable, "-m", "peft_inspect", "run", file.name]
        pairs = [(cpu_seconds(run), cpu_seconds(alone)) for _ in range(repeat)]
    return f"{statistics.median(ours / bare for ours, bare in pairs):.2f} times"


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a process and its children; its exit code is its own affair."""
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


BENCHMARKS: dict[str, tuple[str, Callable[[int], str]]] = {
    "help": ("`--help` against `import typer, rich`", help_text),
    "deepseek": ("`gradcheck arch:deepseek_v3` (671 B, all-linear) against `import torch, transformers, peft`", deepseek),
    "deepseek-tree": ("`tree arch:deepseek_v3`, likewise", deepseek_tree),
    "llama-405b": ("`gradcheck` of the Llama-3.1-405B shape, likewise", llama_405b),
    "adapter": ("`check` of the file of an adapter of the Llama-3-70B shape, likewise", adapter),
    "drawing": ("the tree of the Llama-3-70B shape with LoRA, what drawing adds to building", drawing),
    "depth": ("126 layers against 16", depth),
    "step": ("the whole calls `peft_inspect.gradcheck` and `check` against the bare step", step),
    "deep-tree": ("the tree of 1,000 Llama layers, all-linear", deep_tree),
    "memory": ("peak memory of the watched step against the bare one", memory),
    "run-step": ("the first step of a program under watch", watched_step),
    "run-start": ("`peft-inspect run` against `python`, without a step", start_up),
    "training": ("the callback in a training that is healthy", training),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="default: all")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.chdir(Path(__file__).resolve().parent.parent)
    for name in options.names or BENCHMARKS:
        what, run = BENCHMARKS[name]
        print(f"{what}: {run(options.repeat)}", flush=True)


if __name__ == "__main__":
    main()
