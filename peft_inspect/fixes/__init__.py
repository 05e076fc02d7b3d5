"""What a finding says to do, done in memory, run again and undone."""

from peft_inspect.fixes.trials import verified

__all__ = ["verified"]
