"""Both halves of an actor-critic detach: the value head its features, on purpose, and the policy term its own log-ratio."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*\.(first|second)"
DEAD = 4
VERIFIED = True


class Policy(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)


class ActorCritic(nn.Module):
    def __init__(self, policy):
        super().__init__()
        self.policy, self.value = policy, nn.Linear(4, 1)

    def forward(self, states):
        logits = self.policy(states)
        return logits.log_softmax(-1), self.value(logits.detach()).squeeze(-1)


def program(detached):
    torch.manual_seed(0)
    model = ActorCritic(get_peft_model(Policy(), LoraConfig(r=2, target_modules=["first", "second"])))

    def loss(model, batch):
        logps, values = model(batch["states"])
        chosen = logps.gather(-1, batch["actions"]).squeeze(-1)
        log_ratio = chosen - batch["earlier"]
        if detached:
            log_ratio = log_ratio.detach()  # <- cause
        policy = -(log_ratio.exp() * batch["advantages"]).mean()
        return policy + 0.5 * (values - batch["returns"]).square().mean()

    batch = {
        "states": torch.randn(5, 6),
        "actions": torch.randint(0, 4, (5, 1)),
        "earlier": torch.full((5,), -1.4),
        "advantages": torch.randn(5),
        "returns": torch.randn(5),
    }
    return Example(model, batch, loss)


def broken():
    return program(detached=True)


def fixed():
    return program(detached=False)
