"""The reference pass runs on embeddings that require grad, without no_grad; only its detached logits are used."""

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import kl_div
from transformers import Qwen2Config, Qwen2ForCausalLM

from peft_inspect.rules import Example


def distillation_loss(model, batch):
    embeds = model.get_input_embeddings()(batch["input_ids"]).requires_grad_(True)
    with model.disable_adapter():
        reference = model(inputs_embeds=embeds).logits
    policy = model(inputs_embeds=embeds, labels=batch["labels"])
    pull = kl_div(policy.logits.log_softmax(-1), reference.detach().log_softmax(-1), log_target=True, reduction="batchmean")
    return policy.loss + 0.1 * pull


def healthy():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    base = Qwen2ForCausalLM(Qwen2Config(vocab_size=32, **shape))
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    return Example(
        get_peft_model(base, LoraConfig(r=2, target_modules="all-linear")).train(), {"input_ids": ids, "labels": ids}, distillation_loss
    )
