"""The optimizer's step is smaller than what the weights can hold.

A bfloat16 number has eight significant bits: 0.1 and the next one are 0.0005 apart, and an update of 0.00001 is
rounded away. The loss has a gradient, the optimizer steps, and the stored values are what they were.

Keep the adapter in float32, as PEFT does by default (`autocast_adapter_dtype=True`) on a model in half precision, or
raise the learning rate. Optimizers with float32 copies of the weights, and stochastic rounding, help as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from peft_inspect.records import Finding, Origin, Severity, Trace
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.updates import is_rounded_away, modules, no_step, trained


def check(trace: Trace) -> Iterator[Finding]:
    """Values with a gradient that the step left as they were, nearly all of them."""
    if trace.update is None or not is_rounded_away(trace):
        return
    held = [update for update in trained(trace) if update.held]
    asked, stayed = sum(update.asked for update in held), sum(update.stayed for update in held)
    spacing = median(update.spacing for update in held if update.spacing is not None)
    rates = sorted({update.lr for update in held if update.lr is not None})
    dtypes = sorted({trace.structure.parameter[update.path].dtype for update in held})
    rate = f" with a learning rate of {rates[0]:g}" if rates else ""
    yield RULE.finding(
        f"{trace.update.optimizer} stepped{rate}, and {stayed:,} of {asked:,} values that have a gradient are what they were: "
        f"in {', '.join(dtypes)} the next number is {spacing:.1g} away",
        modules(trace, held),
        facts={
            "unchanged": stayed,
            "with_gradient": asked,
            "spacing": spacing,
            "learning_rate": rates[0] if rates else None,
            "dtypes": dtypes,
        },
        origin=Origin("cast"),
        fix="keep the adapter in float32 (autocast_adapter_dtype=True, the default of get_peft_model), or raise the learning rate",
    )


def broken() -> Example:
    """A resumed adapter in bfloat16, trained further with a small learning rate."""
    import torch

    return _resumed(torch.bfloat16)


def fixed() -> Example:
    """The same in float32."""
    import torch

    return _resumed(torch.float32)


def _resumed(dtype: object) -> Example:
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).to(dtype)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, weight_decay=0.0)

    def step() -> None:
        model(**text_batch()).loss.backward()
        optimizer.step()

    return Example(model, step=step)


RULE = Rule(
    "PI501", "update-lost-to-rounding", Severity.ERROR, over=Trace, check=check, broken=broken, fixed=fixed, needs_values=True, skip=no_step
)
