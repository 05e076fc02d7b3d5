"""The forward returned no loss and none was given: the sum of its outputs was used.

The sum of all outputs shows which weights are wired to them, and nothing more. A detach in the loss, a mask, labels that are
all ignored, a comparison that cancels: none of it runs, so none of it is seen.

Put labels into the batch, or pass the loss that training uses (`--loss train.py:loss`, `loss=` in Python).
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Severity, Trace
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule


def check(trace: Trace) -> Iterator[Finding]:
    """A loss that was made up for want of one."""
    if trace.loss.is_sum and trace.structure.adapter_layers:
        yield RULE.finding(
            f"the forward returned no loss and none was given: {trace.loss.origin} was used, which proves wiring and nothing more",
            facts={"loss": trace.loss.origin, "inputs": list(trace.batch.inputs)},
            fix="put labels into the batch, or pass the loss that training uses (--loss train.py:loss, or loss= in Python)",
        )


def broken() -> Example:
    """A batch without labels."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), {"input_ids": text_batch()["input_ids"]})


def fixed() -> Example:
    """A batch with labels."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch())


RULE = Rule("PI320", "no-loss", Severity.WARNING, over=Trace, check=check, broken=broken, fixed=fixed, needs_values=True)
