"""Configuration files of trainers, each recognised by its own fields. One file per trainer."""

from peft_inspect.load.trainers.recognised import Recognised, Settings, recognise

__all__ = ["Recognised", "Settings", "recognise"]
