"""The states for the reward head come out of generate(), which runs under no_grad."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r"lm\..*"
DEAD = 8


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            eos_token_id=31,
        )
        self.lm = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
        self.reward = nn.Linear(16, 1)

    def states(self, prompt):
        out = self.lm.generate(  # <- cause
            input_ids=prompt, max_new_tokens=2, do_sample=False, return_dict_in_generate=True, output_hidden_states=True
        )
        return torch.cat([step[-1][:, -1] for step in out.hidden_states])

    def forward(self, prompt):
        return {"loss": (self.reward(self.states(prompt)) - 1).square().mean()}


class TeacherForcedAgent(Agent):
    def states(self, prompt):
        with torch.no_grad():
            answer = self.lm.generate(input_ids=prompt, max_new_tokens=2, do_sample=False)
        return self.lm(input_ids=answer, output_hidden_states=True).hidden_states[-1][:, -2:].flatten(0, 1)


def broken():
    return Example(Agent(), {"prompt": torch.tensor([[1, 2, 3]])})


def fixed():
    return Example(TeacherForcedAgent(), {"prompt": torch.tensor([[1, 2, 3]])})
