"""Graphs deeper than the stack: torch frees the nodes that Python has seen by recursion."""

import subprocess
import sys

import pytest

STACK = 1 << 20  # bytes, an eighth of the usual: an eighth of the depth will do

DEEP = """
import torch
from peft import LoraConfig, get_peft_model
import peft_inspect
from peft_inspect.records import Request

class Deep(torch.nn.Module):
    def __init__(self, detached):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(400))
        self.detached = detached

    def forward(self, x):
        for block in self.blocks:
            x = x + 0.01 * block(x)
        return x.detach() if self.detached else x

class Model(torch.nn.Module):
    def __init__(self, detached):
        super().__init__()
        self.base = get_peft_model(Deep(detached), LoraConfig(r=1, target_modules=r"blocks\\.\\d+"))
        self.head = torch.nn.Linear(2, 1)

    def forward(self, x):
        return {"loss": self.head(self.base(x)).square().mean()}
"""
LIVE = "report = peft_inspect.gradcheck(Model(detached={detached}), batch={{'x': torch.rand(2, 2)}})"
WITHOUT_WEIGHTS = """
small = {"num_hidden_layers": 120, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
request = Request(model="arch:llama", lora_fields={"target_modules": ["q_proj", "up_proj"]}, config_fields=small)
report = peft_inspect.inspect(request, "gradcheck")
"""


@pytest.mark.parametrize(
    ("inspection", "found"),
    [(LIVE.format(detached=True), ["PI305"]), (WITHOUT_WEIGHTS, [])],
    ids=["followed", "without weights"],
)
def test_a_deep_graph_is_freed_without_recursion(inspection, found):
    resource = pytest.importorskip("resource")
    program = f"{DEEP}{inspection}\nprint([finding.code for finding in report.findings])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (STACK, resource.getrlimit(resource.RLIMIT_STACK)[1])),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == str(found)
