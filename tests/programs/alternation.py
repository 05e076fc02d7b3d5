"""A generator with an adapter and a critic without one take turns, the critic three times for each step of the generator."""

import sys

import torch
from tiny import IDS, trained, wrapped

generator = wrapped()
critic = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
of_generator = torch.optim.Adam(trained(generator), lr=1e-3)
of_critic = torch.optim.Adam(critic.parameters(), lr=1e-3)


def generated():
    logits = generator(input_ids=IDS).logits
    if "sampled" in sys.argv:
        return torch.nn.functional.one_hot(logits.argmax(-1), 64).float()  # <- cause sampled
    return logits.softmax(-1)


real = torch.nn.functional.one_hot(IDS, 64).float()
for _ in range(6):
    for _ in range(3):
        of_critic.zero_grad()
        (critic(generated().detach()).mean() - critic(real).mean()).backward()
        of_critic.step()
    of_generator.zero_grad()
    (-critic(generated()).mean() + 0 * critic[0].weight.sum()).backward()
    of_generator.step()
