"""What the user named → Subject: model forms, LoRA configs, adapters, batches."""

from peft_inspect.load.loading import live, load

__all__ = ["live", "load"]
