"""A BERT encoder and a GPT-2 decoder, each its own PeftModel with its own config, joined by a bridge; micro-batches are summed."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from peft_inspect.rules import Example


class Captioner(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        bert = BertModel(
            BertConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2),
            add_pooling_layer=False,
        )
        gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=24, n_positions=16, n_embd=12, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2))
        self.encoder = get_peft_model(bert, LoraConfig(r=2, target_modules=["query", "value"]))
        self.bridge = nn.Linear(16, 12)
        self.decoder = get_peft_model(gpt2, LoraConfig(r=4, use_rslora=True, target_modules=["c_attn"], fan_in_fan_out=True))

    def forward(self, source, target):
        prefix = self.bridge(self.encoder(input_ids=source).last_hidden_state)
        embeds = torch.cat([prefix, self.decoder.get_input_embeddings()(target)], 1)
        labels = torch.cat([torch.full_like(source, -100), target], 1)
        return self.decoder(inputs_embeds=embeds, labels=labels).loss


def accumulated(model, batch):
    halves = zip(batch["source"].chunk(2), batch["target"].chunk(2), strict=True)
    return sum(model(source, target) for source, target in halves) / 2


def healthy():
    return Example(Captioner().train(), {"source": torch.randint(32, (4, 3)), "target": torch.randint(3, 24, (4, 4))}, accumulated)
