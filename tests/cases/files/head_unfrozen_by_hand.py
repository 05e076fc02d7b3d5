"""The classification head was unfrozen by hand and trained; save_pretrained leaves it out, and the reloaded head is random."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained
from transformers import LlamaForSequenceClassification

RULE, NAME = "PI406", "head-not-saved"
LAYERS = r"base_model\.model\.score"
SEVERITY = "warning"


def classifier():
    return llama(LlamaForSequenceClassification, num_labels=3)


def broken(folder):
    model = get_peft_model(classifier(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    model.base_model.model.score.requires_grad_(True)
    saved(trained(model), folder)
    return PeftModel.from_pretrained(classifier(), folder), folder


def fixed(folder):
    saved(trained(get_peft_model(classifier(), LoraConfig(target_modules=["q_proj", "v_proj"], task_type="SEQ_CLS"))), folder)
    return PeftModel.from_pretrained(classifier(), folder), folder
