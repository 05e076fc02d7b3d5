"""The LoRA configuration that was asked for, and wrapping a model with it."""
