"""The gradients are cleared after the backward and before the step.

`zero_grad()` belongs before the backward or after the step. Between them it takes away what the step was to use: the
loss is computed and logged as ever, and nothing moves but what weight decay moves.

Call `zero_grad()` right after `step()`, or before the forward.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Severity, Trace
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.updates import is_cleared, modules, no_step, trained


def check(trace: Trace) -> Iterator[Finding]:
    """Gradients that had arrived, and of which the optimizer finds none."""
    updates = trained(trace)
    if trace.update is not None and is_cleared(trace):
        yield RULE.finding(
            f"{len(updates)} adapter parameters had a gradient after the backward, and none of them has one when {trace.update.optimizer} steps",
            modules(trace, updates),
            source=trace.update.cleared,
            facts={"parameters": len(updates)},
            fix="clear the gradients after step(), or before the forward",
        )


def broken() -> Example:
    """Cleared one line too early."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)

    def step() -> None:
        model(**text_batch()).loss.backward()
        optimizer.zero_grad()
        optimizer.step()

    return Example(model, step=step)


def fixed() -> Example:
    """Cleared after the step."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)

    def step() -> None:
        model(**text_batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Example(model, step=step)


RULE = Rule(
    "PI503",
    "gradients-cleared-before-step",
    Severity.ERROR,
    over=Trace,
    check=check,
    broken=broken,
    fixed=fixed,
    needs_values=True,
    skip=no_step,
)
