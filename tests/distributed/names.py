"""The rows and their faults by name: what the tests go through without the runtimes that run them."""

ROWS = (
    *("ddp", "ddp-unused", "ddp-static-graph", "ddp-views", "ddp-accumulation", "ddp-checkpoint", "ddp-checkpoint-reentrant"),
    "zero-redundancy",
    *("fsdp2", "fsdp2-whole", "fsdp2-mixed-precision", "fsdp2-kept", "fsdp2-checkpoint", "fsdp2-checkpoint-reentrant"),
    *("fsdp1", "fsdp1-flat"),
    *("tensor-parallel", "compiled", "checkpoint-resumed"),
)
"""As docs/distributed.md has them."""

DEEPSPEED = ("zero-1", "zero-2", "zero-3")
"""Where DeepSpeed is installed."""

# Elsewhere a fault of one process leaves the other one in its backward, which only the end of the job ends
FAULTS = {row: ("everywhere", "one") if row in ("ddp-unused", "zero-redundancy") else ("everywhere",) for row in (*ROWS, *DEEPSPEED)}
"""Where the adapters run without gradients: in each process, or in the second alone."""
