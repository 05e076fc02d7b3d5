"""A merged checkpoint against its base and adapter, streamed: whether the one is the other two, merged as PEFT merges."""

from peft_inspect.structure.merged.judging import judged_merge

__all__ = ["judged_merge"]
