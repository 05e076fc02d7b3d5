"""Optimizers that do not step as others do, and steps that come to nothing."""

import sys

import torch
from tiny import IDS, trained, wrapped

kind = sys.argv[1]
model = wrapped(lora_dropout=0.0, **({"init_lora_weights": False} if kind == "bf16" else {}))
if kind == "bf16":
    model.to(torch.bfloat16)  # <- cause bf16


def loss_of():
    return model(input_ids=IDS, labels=IDS).loss


def in_backward():
    """An optimizer for each weight, which steps as soon as its gradient is there."""
    each = {parameter: torch.optim.AdamW([parameter], lr=1e-3) for parameter in trained(model)}

    def step(parameter):
        each[parameter].step()
        each[parameter].zero_grad()

    for parameter in each:
        parameter.register_post_accumulate_grad_hook(step)
    for _ in range(4):
        loss_of().backward()


def by_hand():
    """No optimizer at all."""
    for _ in range(4):
        loss_of().backward()
        with torch.no_grad():
            for parameter in trained(model):
                parameter.sub_(parameter.grad, alpha=0.1)
                parameter.grad = None


def closure():
    optimizer = torch.optim.LBFGS(trained(model), max_iter=3)

    def evaluate():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(evaluate)


def cleared():
    optimizer = torch.optim.AdamW(trained(model), lr=1e-3)
    for _ in range(4):
        loss_of().backward()
        optimizer.zero_grad()  # <- cause cleared
        optimizer.step()


def bf16():
    optimizer = torch.optim.AdamW(trained(model), lr=1e-6, weight_decay=0.0)
    for _ in range(4):
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()


def warmup():
    optimizer = torch.optim.AdamW(trained(model), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 3, 1))
    for _ in range(4):
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()
        schedule.step()


def unwarmed():
    """Integer division: the factor is 0 until the warm-up is over, which it never is."""
    optimizer = torch.optim.AdamW(trained(model), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step // 100)  # <- cause unwarmed
    for _ in range(4):
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()
        schedule.step()


def emptied():
    """A generator is empty once it has been read."""
    parameters = (parameter for parameter in model.parameters() if parameter.requires_grad)
    print("training", sum(parameter.numel() for parameter in parameters))
    head = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW([{"params": parameters}, {"params": head.parameters()}])  # <- cause emptied
    for _ in range(4):
        loss_of().backward()
        optimizer.step()


def unstepped():
    """More steps to accumulate than there are batches."""
    optimizer = torch.optim.AdamW(trained(model), lr=1e-3)  # <- cause unstepped
    for batch in range(1, 7):
        loss_of().backward()
        if batch % 8 == 0:
            optimizer.step()


def scaled():
    """A loss that is NaN whatever a scaler makes of it: every step is left out."""
    optimizer, scaler = torch.optim.AdamW(trained(model), lr=1e-3), torch.amp.GradScaler("cpu")
    for _ in range(4):
        optimizer.zero_grad()
        loss = loss_of()
        scaler.scale(loss * torch.sqrt(-loss.detach())).backward()  # <- cause scaled
        scaler.step(optimizer)
        scaler.update()


def clipped():
    optimizer = torch.optim.AdamW(trained(model), lr=1e-3, weight_decay=0.0)
    for _ in range(4):
        optimizer.zero_grad()
        loss_of().backward()
        torch.nn.utils.clip_grad_norm_(trained(model), 0.0)  # <- cause clipped
        optimizer.step()


globals()[kind]()
