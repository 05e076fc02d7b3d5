"""DPO with a second adapter as the reference policy: it is frozen and inactive on purpose."""

import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

FIXED_DEAD = 8  # the reference's own


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )


def log_probability(model, ids):
    logits = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
    return logits.gather(-1, ids[:, 1:, None]).sum()


def dpo_loss(model, batch):
    with torch.no_grad():
        model.set_adapter("reference")
        reference = log_probability(model, batch["chosen"]) - log_probability(model, batch["rejected"])
        model.set_adapter("default")
    policy = log_probability(model, batch["chosen"]) - log_probability(model, batch["rejected"])
    return -torch.nn.functional.logsigmoid(0.1 * (policy - reference))


def healthy():
    with tempfile.TemporaryDirectory() as sft:
        get_peft_model(base(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).save_pretrained(sft)
        model = PeftModel.from_pretrained(base(), sft, is_trainable=True)
        model.load_adapter(sft, "reference")
    batch = {"chosen": torch.tensor([[1, 2, 3, 4]]), "rejected": torch.tensor([[1, 2, 9, 9]])}
    return Example(model.train(), batch, dpo_loss)
