"""transformers' Trainer with accumulation, an evaluation at the start and workers that load data."""

import sys
import tempfile

from tiny import ROWS, wrapped
from transformers import Trainer, TrainingArguments

model = wrapped()
if "frozen" in sys.argv:
    model.requires_grad_(False)  # <- cause frozen
    model.get_output_embeddings().weight.requires_grad_(True)
settings = TrainingArguments(
    tempfile.mkdtemp(),
    max_steps=6,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    eval_on_start=True,
    dataloader_num_workers=1,
    use_cpu=True,
    save_strategy="no",
    disable_tqdm=True,
    report_to=[],
    fp16="fp16" in sys.argv,
)
Trainer(model, settings, train_dataset=ROWS, eval_dataset=ROWS).train()
