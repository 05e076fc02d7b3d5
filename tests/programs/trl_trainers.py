"""TRL's trainers as their users start them: SFT, DPO, GRPO."""

import sys
import tempfile

from datasets import Dataset
from tiny import llama, lora
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

kind = sys.argv[1]
words = ["<pad>", "</s>", "<s>", "<unk>", "a", "b", "c", "d", "e", "f", "g", "h", "red", "green", "blue", "one", "two", "three"]
raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
raw.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", bos_token="<s>", unk_token="<unk>")
common = {
    "output_dir": tempfile.mkdtemp(),
    "max_steps": 6,
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "save_strategy": "no",
    "disable_tqdm": True,
    "report_to": [],
    "bf16": False,
}
settings = {"peft_config": lora(), "processing_class": tokenizer}
if kind == "sft":
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_dict({"text": ["a b c d one two", "e f g h red green"] * 8})
    trainer = SFTTrainer(llama(), SFTConfig(**common, max_length=16), train_dataset=rows, **settings)
elif kind == "dpo":
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_dict({"prompt": ["a b"] * 8, "chosen": [" one two"] * 8, "rejected": [" red blue"] * 8})
    trainer = DPOTrainer(llama(), args=DPOConfig(**common), train_dataset=rows, **settings)
else:
    from trl import GRPOConfig, GRPOTrainer

    calls = iter(range(10_000))
    rows = Dataset.from_dict({"prompt": ["a b", "c d"] * 8})
    arguments = GRPOConfig(**common, num_generations=2, max_completion_length=4)

    def reward(completions, **_):
        return [float(next(calls)) for _ in completions]

    trainer = GRPOTrainer(llama(), reward, args=arguments, train_dataset=rows, **settings)
if "disabled" in sys.argv:
    trainer.model.disable_adapter_layers()  # <- cause disabled
    trainer.model.get_output_embeddings().weight.requires_grad_(True)
trainer.train()
