"""Watching one step: what ran, in which grad mode, what reached the loss, and where a path ends."""

from peft_inspect.trace.watching import run_trace

__all__ = ["run_trace"]
