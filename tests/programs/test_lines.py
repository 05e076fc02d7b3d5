"""Faults that are made before the step: each is shown at the line that makes it, and the repaired program is silent.

The programs are built from one frame, all in this process: `build` makes the model, `optimizer` what trains it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import peft_inspect
from peft_inspect.inspection import inspect
from peft_inspect.records import Finding, Request

pytestmark = pytest.mark.filterwarnings("ignore")

FRAME = """
import tempfile
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
    def forward(self, x, labels):
        return {{"loss": nn.functional.cross_entropy(self.head(self.second(self.first(x)).tanh()), labels)}}

def batch():
    torch.manual_seed(0)
    return {{"x": torch.randn(4, 6), "labels": torch.tensor([0, 1, 2, 0])}}

def config(**fields):
    return LoraConfig(**{{"r": 2, "target_modules": ["first", "second"], **fields}})

def wrapped(**fields):
    return get_peft_model(Net(), config(**fields))

def trained(model):
    return [p for p in model.parameters() if p.requires_grad]

{program}
"""

PROGRAMS: dict[str, tuple[str, str, str]] = {  # name → the program, the rule that it breaks, words of the finding
    "frozen by a helper on another name": (
        """
def freeze_first(model):
    for name, p in model.named_parameters():
        if "first" in name:
            p.requires_grad_(False)  # <- cause

def build():
    model = wrapped()
    freeze_first(model)  # <- repaired: pass
    return model
""",
        "PI302",
        "something froze 1 adapter layer",
    ),
    "a module frozen as a whole": (
        """
def build():
    model = wrapped()
    model.base_model.model.second.requires_grad_(False)  # <- cause # <- repaired: pass
    return model
""",
        "PI302",
        "something froze 1 adapter layer",
    ),
    "disabled for a baseline": (
        """
def evaluate(model):
    model.disable_adapter_layers()  # <- cause # <- repaired: pass
    with torch.no_grad():
        return model(**batch())

def build():
    model = wrapped()
    evaluate(model)
    return model
""",
        "PI205",
        "ran with adapters disabled",
    ),
    "merged to export": (
        """
def build():
    model = wrapped(init_lora_weights=False)
    model.merge_adapter()  # <- cause
    state = model.state_dict()
    pass  # <- repaired: model.unmerge_adapter()
    return model
""",
        "PI206",
        "ran merged",
    ),
    "a saved config that says inference": (
        """
def build():
    return get_peft_model(
        Net(),
        LoraConfig(
            r=2,
            target_modules=["first", "second"],
            inference_mode=True,  # <- cause # <- repaired: inference_mode=False,
        ),
    )
""",
        "PI301",
        "was loaded for inference",
    ),
    "loaded to go on": (
        """
def build():
    folder = tempfile.mkdtemp()
    wrapped(init_lora_weights=False).save_pretrained(folder)
    training = False  # <- repaired: training = True
    return PeftModel.from_pretrained(Net(), folder, is_trainable=training)  # <- cause
""",
        "PI301",
        "was loaded for inference",
    ),
    "an alpha of zero": (
        """
def build():
    options = LoraConfig(
        r=2, target_modules=["first", "second"],
        lora_alpha=0,  # <- cause # <- repaired: lora_alpha=4,
        lora_dropout=0.0)
    return get_peft_model(Net(), options)
""",
        "PI311",
        "the scaling of 2 adapter layers is zero",
    ),
    "initialised after the wrapping": (
        """
def initialise(module):
    for p in module.parameters(recurse=False):
        if p.ndim > 1:
            nn.init.constant_(p, 0.0)  # <- cause

def build():
    model = wrapped()
    model.base_model.model.second.lora_A.apply(initialise)  # <- repaired: pass
    return model
""",
        "PI312",
        "hold only zeros",
    ),
    "zeroed through its data": (
        """
def build():
    model = wrapped()
    for name, p in model.named_parameters():
        print(p.data.norm().item(), file=__import__("sys").stderr)
        if "lora_A" in name:
            p.data.zero_()  # <- cause # <- repaired: pass
        print(p.data.norm().item(), file=__import__("sys").stderr)
    return model
""",
        "PI312",
        "hold only zeros",
    ),
    "restored from nothing": (
        """
def build():
    model = wrapped()
    empty = {name: torch.zeros_like(value) for name, value in model.state_dict().items() if "lora_" in name}
    model.load_state_dict(empty, strict=False)  # <- cause # <- repaired: pass
    return model
""",
        "PI312",
        "hold only zeros",
    ),
    "an optimizer older than the adapter": (
        """
MADE = {}

def build():
    net = Net()
    MADE["optimizer"] = torch.optim.AdamW(net.parameters(), lr=1e-3)  # <- cause # <- repaired: MADE.clear()
    return get_peft_model(net, config())

def optimizer(model):
    return MADE.get("optimizer") or torch.optim.AdamW(trained(model), lr=1e-3)
""",
        "PI317",
        "0 of 4 trainable adapter parameters: it is older than the adapter",
    ),
    "parameters collected before": (
        """
HELD = []

def build():
    net = Net()
    HELD[:] = net.parameters()
    return get_peft_model(net, config())

def optimizer(model):
    return torch.optim.AdamW(HELD, lr=1e-3)  # <- cause # <- repaired: return torch.optim.AdamW(trained(model), lr=1e-3)
""",
        "PI317",
        "all 6 parameters of the model that it holds are frozen",
    ),
    "the head alone": (
        """
def build():
    return wrapped(modules_to_save=["head"])

def optimizer(model):
    head = [p for name, p in model.named_parameters() if "head" in name and p.requires_grad]
    return torch.optim.AdamW(head, lr=1e-3)  # <- cause # <- repaired: return torch.optim.AdamW(trained(model), lr=1e-3)
""",
        "PI317",
        "'lora_A', 'lora_B' are missing",
    ),
    "one factor alone": (
        """
def build():
    return wrapped()

def optimizer(model):
    wanted = "lora_B"  # <- repaired: wanted = "lora_"
    return torch.optim.SGD([{"params": [p for name, p in model.named_parameters() if wanted in name]}], lr=0.1)  # <- cause
""",
        "PI317",
        "2 of 4 trainable adapter parameters: 'lora_A' is missing",
    ),
    "a generator that was counted first": (
        """
def build():
    return wrapped()

def optimizer(model):
    tuned = (p for p in model.parameters() if p.requires_grad)  # <- repaired: tuned = trained(model)
    count = len(list(tuned))
    other = nn.Linear(2, 2)
    return torch.optim.SGD([{"params": tuned}, {"params": other.parameters()}], lr=0.1)  # <- cause
""",
        "PI317",
        "had nothing left when the optimizer read it",
    ),
    "an optimizer for an adapter that is not active": (
        """
def build():
    model = wrapped()
    model.add_adapter("second_task", config())  # <- cause
    pass  # <- repaired: model.set_adapter("second_task")
    return model

def optimizer(model):
    return torch.optim.SGD([p for name, p in model.named_parameters() if ".second_task." in name], lr=0.1)
""",
        "PI207",
        "though the optimizer was made to train it",
    ),
    "half precision before the wrapping": (
        """
def build():
    net = Net()
    net.to(dtype=torch.float16)  # <- cause # <- repaired: pass
    return get_peft_model(net, config(), autocast_adapter_dtype=False)

def loss(model, batch):
    x = batch["x"].to(next(model.parameters()).dtype)
    return model(x=x, labels=batch["labels"])["loss"] * 1e-8
""",
        "PI314",
        "underflow to zero in float16",
    ),
    "a function that gives no gradient in one of two ways": (
        """
class Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, limit):
        ctx.limit = limit
        return x.clamp(max=limit)
    @staticmethod
    def backward(ctx, g):
        if ctx.limit is None:
            return g, None
        return None, None  # <- cause # <- repaired: return g * 1.0, None

class Clamped(Net):
    def forward(self, x, labels):
        hidden = Clamp.apply(self.second(self.first(x)), 0.5)
        return {"loss": nn.functional.cross_entropy(self.head(hidden), labels)}

def build():
    model = get_peft_model(Clamped(), config(modules_to_save=["head"]))
    return model
""",
        "PI309",
        "because the backward of Clamp (called at ",
    ),
    "a function that scales its gradient to nothing": (
        """
class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, by):
        ctx.by = by
        return x.clone()
    @staticmethod
    def backward(ctx, g):
        scaled = g * ctx.by
        return scaled, None  # <- cause

class Scaled(Net):
    by = 0.0  # <- repaired: by = 0.5
    def forward(self, x, labels):
        hidden = Scale.apply(self.second(self.first(x)), self.by)
        return {"loss": nn.functional.cross_entropy(self.head(hidden), labels)}

def build():
    return get_peft_model(Scaled(), config(modules_to_save=["head"]))
""",
        "PI310",
        "they become zero in the backward of Scale (called at ",
    ),
    "labels that a collator masks away": (
        """
from transformers import LlamaConfig, LlamaForCausalLM

MARK = 99  # <- repaired: MARK = 3

def collate(rows):
    ids = torch.stack(rows)
    labels = torch.full_like(ids, -100)
    for row, line in enumerate(ids.tolist()):
        start = line.index(MARK) + 1 if MARK in line else len(line)
        labels[row, start:] = ids[row, start:]  # <- cause
    return {"input_ids": ids, "labels": labels}

LOADER = torch.utils.data.DataLoader([torch.arange(8) for _ in range(2)], batch_size=2, collate_fn=collate)

def batch():
    return next(iter(LOADER))

def build():
    shape = dict(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    return get_peft_model(LlamaForCausalLM(LlamaConfig(**shape)), LoraConfig(r=2, target_modules=["q_proj"]))
""",
        "PI313",
        "all 16 labels of the batch are the ignore index",
    ),
    "a moving average called by its owner": (
        """
import copy

class Averaged(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = wrapped()
        self.average = copy.deepcopy(self.student)
    def forward(self, x, labels):
        if self.student is None:
            return None
        return self.average(x=x, labels=labels)  # <- cause # <- repaired: return self.student(x=x, labels=labels)

def build():
    model = Averaged()
    pass  # <- repaired: model.average.requires_grad_(False)
    return model

def optimizer(model):
    return torch.optim.SGD(trained(model.student), lr=0.1)
""",
        "PI203",
        "never ran: a copy with the same base weights ran in its place",
    ),
    "a copy called by its owner": (
        """
import copy

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = wrapped()
        self.copy = copy.deepcopy(self.student)
    def forward(self, x, labels):
        used = self.copy  # <- repaired: used = self.student
        return used(x=x, labels=labels)  # <- cause

def build():
    pair = Pair()
    pair.copy.requires_grad_(False)
    pair.copy.base_model.model.head.requires_grad_(True)  # <- repaired: pass
    return pair

def optimizer(model):
    return torch.optim.SGD(trained(model.student), lr=0.1)
""",
        "PI203",
        "never ran: a copy with the same base weights ran in its place",
    ),
}


def report_on(path: Path, program: str) -> peft_inspect.Report:
    """The report on a program in a file of its own."""
    path.write_text(FRAME.format(program=program))
    given = {name: f"{path}:{name}" for name in ("loss", "optimizer") if f"def {name}(" in program}
    return inspect(Request(model=f"{path}:build", batch=f"{path}:batch", **given))


def repaired(program: str) -> str:
    """The program with what its comments put in the place of the lines at fault."""
    lines = []
    for line in program.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        fault, marked, better = line.partition("# <- repaired: ")
        lines.append(indent + better if marked else fault)
    return "\n".join(lines)


def errors(report: peft_inspect.Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.severity == "error"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_line_is_the_one_that_makes_the_fault(tmp_path: Path, name: str) -> None:
    program, code, words = PROGRAMS[name]
    path = tmp_path / f"line_{list(PROGRAMS).index(name)}.py"
    report = report_on(path, program)
    assert [found.code for found in errors(report)] == [code], report
    (found,) = errors(report)
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "# <- cause" in text)
    assert found.source is not None
    assert (Path(found.source.file).name, found.source.line) == (path.name, line), found.source
    assert words in found.message


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_repaired_program_is_silent(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"repaired_{list(PROGRAMS).index(name)}.py"
    report = report_on(path, repaired(PROGRAMS[name][0]))
    assert [finding.code for finding in report.findings] == [], report


def test_watching_leaves_nothing_behind(tmp_path: Path) -> None:
    from peft_inspect.run import patches

    def places() -> list[Any]:
        return [vars(owner).get(name) for owner, name in patches.PLACES]

    before = places()
    report_on(tmp_path / "left.py", PROGRAMS["merged to export"][0])
    assert places() == before
