"""sentence-transformers: pairs of sentences, and the other pairs of the batch as what they are not."""

import sys
import tempfile
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments, losses, models
from transformers import BertConfig, BertModel, BertTokenizerFast

folder = tempfile.mkdtemp()
Path(folder, "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcde"]))
BertTokenizerFast(f"{folder}/vocab.txt").save_pretrained(folder)
shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32}
BertModel(BertConfig(vocab_size=10, **shape)).save_pretrained(folder)
model = SentenceTransformer(modules=[models.Transformer(folder, max_seq_length=16), models.Pooling(16)], device="cpu")
model.add_adapter(LoraConfig(target_modules=["query", "value"]))
if "frozen" in sys.argv:
    model.requires_grad_(False)  # <- cause frozen
    model[0].auto_model.embeddings.requires_grad_(True)
settings = SentenceTransformerTrainingArguments(
    output_dir=tempfile.mkdtemp(),
    max_steps=4,
    per_device_train_batch_size=4,
    use_cpu=True,
    save_strategy="no",
    disable_tqdm=True,
    report_to=[],
)
rows = Dataset.from_dict({"anchor": ["a b", "c d"] * 8, "positive": ["a c", "c e"] * 8})
SentenceTransformerTrainer(model, settings, train_dataset=rows, loss=losses.MultipleNegativesRankingLoss(model)).train()
print("trained to the end")
