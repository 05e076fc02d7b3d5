"""Reference log-probs by hand-switching the adapters off; the early return forgets to switch them on again."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI205", "adapters-disabled"
LAYERS = r".*self_attn\.(q|v)_proj"
DEAD = 8
VERIFIED = True


class Trainer:
    def __init__(self):
        torch.manual_seed(0)
        base = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
            )
        )
        self.model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))

    def reference_logits(self, ids):
        self.model.disable_adapter_layers()
        logits = self.model(input_ids=ids).logits
        if logits.isfinite().all():
            return logits.detach()
        self.model.enable_adapter_layers()
        raise FloatingPointError

    def safe_reference_logits(self, ids):
        with torch.no_grad(), self.model.disable_adapter():
            return self.model(input_ids=ids).logits


def kl_loss(model, batch):
    policy = model(input_ids=batch["input_ids"]).logits.log_softmax(-1)
    return torch.nn.functional.kl_div(policy, batch["reference"].softmax(-1), reduction="batchmean")


def broken():
    trainer = Trainer()
    ids = torch.tensor([[4, 8, 15, 16, 23]])
    return Example(trainer.model, {"input_ids": ids, "reference": trainer.reference_logits(ids)}, kl_loss)


def fixed():
    trainer = Trainer()
    ids = torch.tensor([[4, 8, 15, 16, 23]])
    reference = trainer.safe_reference_logits(ids) + torch.randn(32)
    return Example(trainer.model, {"input_ids": ids, "reference": reference}, kl_loss)
