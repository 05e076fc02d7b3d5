"""The target is not what the project's configuration expects of it.

`expect` in the configuration pins the number of adapter layers, the range of trainable parameters,
and that every adapter parameter gets a gradient. It is judged whatever rules are selected.

Find out what changed, or change the expectation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from peft_inspect.records import Expectations, Finding, Pinned, Pins, Severity, Trace
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule


def check(pinned: Pinned) -> Iterator[Finding]:
    """One finding for each expectation that does not hold."""
    expect, structure = pinned.pins.expect or Expectations(), pinned.structure
    layers = len(structure.adapter_layers)
    if expect.adapter_layers not in (None, layers):
        yield _finding(
            f"{expect.adapter_layers} adapter layers are expected, and there are {layers}", expected=expect.adapter_layers, found=layers
        )
    trainable = sum(parameter.numel for parameter in structure.parameters if parameter.requires_grad)
    if expect.trainable_parameters is not None:
        least, most = expect.trainable_parameters
        if not least <= trainable <= most:
            wanted = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            yield _finding(
                f"{wanted} trainable parameters are expected, and there are {trainable:,}", expected=[least, most], found=trainable
            )
    if expect.gradients and pinned.trace is not None:
        yield from _without_gradient(pinned.trace)


def _without_gradient(trace: Trace) -> Iterator[Finding]:
    """Adapter parameters without a gradient."""
    owner = {path: layer.path for layer in trace.structure.adapter_layers for path in layer.parameters}
    arrived = {gradient.path for gradient in trace.gradients if gradient.arrived}
    dead = [path for path in owner if path not in arrived]
    if dead:
        yield _finding(
            f"a gradient is expected for every adapter parameter, and {len(dead)} of {len(owner)} get none",
            (owner[path] for path in dead),
            found=len(dead),
        )


def _finding(message: str, modules: Iterable[str] = (), **facts: object) -> Finding:
    return RULE.finding(message, modules, facts=facts, fix="find out what changed, or change `expect` in the configuration")


def _unjudged(pinned: Pinned) -> str | None:
    if pinned.pins.expect is None:
        return "nothing is expected: no configuration has an `expect`"
    unseen = pinned.pins.expect.gradients and pinned.trace is None
    return "gradients: no selected rule needed a batch" if unseen and not tuple(check(pinned)) else None


def broken() -> Example:
    """A new version of the model calls its value projection otherwise: half of the adapter layers are gone."""
    return _expecting_both(["q_proj"])


def fixed() -> Example:
    """As it was when the number was pinned."""
    return _expecting_both(["q_proj", "v_proj"])


def _expecting_both(target_modules: list[str]) -> Example:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=target_modules))
    return Example(model, text_batch(), pins=Pins(expect=Expectations(adapter_layers=4, gradients="all")))


RULE = Rule("PI001", "expectation-not-met", Severity.ERROR, over=Pinned, check=check, broken=broken, fixed=fixed, skip=_unjudged)
