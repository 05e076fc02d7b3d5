"""PPO: the value head learns from detached states, the policy from its own loss; the advantage goes through NumPy."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from peft_inspect.rules import Example


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        base = GPT2LMHeadModel(GPT2Config(vocab_size=24, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2))
        self.actor = get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, task_type="CAUSAL_LM"))
        self.critic = nn.Linear(16, 1)

    def forward(self, input_ids, reward):
        output = self.actor(input_ids=input_ids, output_hidden_states=True)
        values = self.critic(output.hidden_states[-1].detach()).squeeze(-1)[:, :-1]
        advantage = torch.from_numpy(reward.numpy()[:, None] - values.detach().numpy())
        chosen = output.logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)
        ratio = (chosen - chosen.detach()).exp()
        policy_loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        return {"loss": policy_loss + 0.5 * (values - reward[:, None]).square().mean(), "entropy": float(chosen.mean())}


def healthy():
    batch = {"input_ids": torch.tensor([[3, 4, 5, 6], [7, 8, 9, 2]]), "reward": torch.tensor([1.0, -1.0])}
    return Example(ActorCritic().train(), batch)
