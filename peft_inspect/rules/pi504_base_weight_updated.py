"""The step changed base weights that are frozen.

Freezing a weight does not take away a gradient that it has already: an optimizer that holds both goes on to use it. Some
optimizers and schedules decay whatever they hold, gradient or not. The base model drifts, and an adapter that was
trained on it does not fit the one that it is loaded onto.

Give the optimizer the trainable parameters alone, and clear gradients after freezing.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Severity, Trace
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.updates import no_step
from peft_inspect.rules.words import counted


def check(trace: Trace) -> Iterator[Finding]:
    """Frozen base weights that were written while the optimizer stepped."""
    if trace.update is not None and trace.update.base_moved:
        moved = trace.update.base_moved
        yield RULE.finding(
            f"the step of {trace.update.optimizer} wrote into {counted(len(moved), 'frozen base weight')}, such as {moved[0]!r}",
            [trace.structure.parameter[path].module for path in moved],
            facts={"weights": len(moved)},
            fix="build the optimizer from [p for p in model.parameters() if p.requires_grad], and clear gradients after freezing",
        )


def broken() -> Example:
    """The optimizer holds everything, and a gradient from before the freezing is left."""
    import torch
    from peft import LoraConfig, get_peft_model

    base = tiny_llama()
    base(**text_batch()).loss.backward()
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        model(**text_batch()).loss.backward()
        optimizer.step()

    return Example(model, step=step)


def fixed() -> Example:
    """Gradients cleared after the freezing."""
    import torch
    from peft import LoraConfig, get_peft_model

    base = tiny_llama()
    base(**text_batch()).loss.backward()
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()

    def step() -> None:
        model(**text_batch()).loss.backward()
        optimizer.step()

    return Example(model, step=step)


RULE = Rule(
    "PI504", "base-weight-updated", Severity.WARNING, over=Trace, check=check, broken=broken, fixed=fixed, needs_values=True, skip=no_step
)
