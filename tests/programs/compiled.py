"""Compiled in each of the ways there are; how often a compiled graph ran is printed after every step."""

import sys

import torch
from tiny import IDS, trained, wrapped

model = wrapped(lora_dropout=0.1)
way, fault = sys.argv[1], sys.argv[-1]
if fault == "detached":
    model.get_output_embeddings().weight.requires_grad_(True)
base = model.base_model.model
inside = base.model
graphs = 0


def backend(graph, inputs):
    from torch._dynamo.backends.debugging import aot_eager

    compiled = aot_eager(graph, inputs)

    def counted(*args):
        global graphs  # noqa: PLW0603
        graphs += 1
        return compiled(*args)

    return counted


if way == "wrapper":
    inside = torch.compile(inside, backend=backend)
elif way == "method":
    inside.compile(backend=backend)
elif way == "regional":
    for layer in inside.layers:
        layer.compile(backend=backend)


def loss():
    hidden = inside(IDS).last_hidden_state
    if fault == "detached":
        hidden = hidden.detach()  # <- cause detached
    return torch.nn.functional.cross_entropy(base.lm_head(hidden)[0], IDS[0])


if way == "function":
    loss = torch.compile(loss, backend=backend)
optimizer = torch.optim.AdamW(trained(model), lr=1e-2)
torch.manual_seed(0)
for step in range(6):
    optimizer.zero_grad()
    value = loss()
    value.backward()
    optimizer.step()
    print("loss", step, value.item(), "graphs", graphs)
