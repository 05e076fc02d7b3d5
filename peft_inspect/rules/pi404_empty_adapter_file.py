"""The adapter file is valid and has no tensors, or tensors of size 0.

`save_pretrained` writes whatever state it is given. Under FSDP and DeepSpeed ZeRO-3 the gathered
state is empty on every process but one, and weights that were not gathered have size 0. The
adapter loads, and the outputs are those of the base model.

Gather the full state first, and look at the file before the training machine is gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import AdapterFile, Finding, Severity
from peft_inspect.rules.adapter_examples import adapted, saved
from peft_inspect.rules.adapter_match import adapter_layers, loaded, match
from peft_inspect.rules.examples import text_batch
from peft_inspect.rules.rule import Example, Rule


def check(file: AdapterFile) -> Iterator[Finding]:
    """No tensors, or some that hold nothing."""
    sizeless = match(file).sizeless
    if file.tensors and not sizeless:
        return
    keys = [loaded(tensor) for tensor in sizeless if loaded(tensor) in file.layer_of] if sizeless else list(file.layer_of)
    what = (
        f"{len(sizeless)} of {len(file.tensors)} tensors in {file.path} have size 0" if sizeless else f"{file.path} has no tensors at all"
    )
    yield RULE.finding(
        f"{what}: there is nothing to load",
        adapter_layers(keys, file),
        facts={"file": file.path, "tensors": len(file.tensors), "sizeless": len(sizeless)},
        fix="save the adapter again with the full state: gather it first under FSDP or ZeRO-3, and let the process that holds it save",
    )


def _not_a_file(file: AdapterFile) -> str | None:
    return "no adapter file was named" if file.in_memory else None


def broken() -> Example:
    """The gathered state was empty on the process that saved."""
    model = adapted()
    return Example(model, text_batch(), adapter=saved(model, lambda _: {}))


def fixed() -> Example:
    """The full state."""
    model = adapted()
    return Example(model, text_batch(), adapter=saved(model))


RULE = Rule("PI404", "empty-adapter-file", Severity.ERROR, over=AdapterFile, check=check, broken=broken, fixed=fixed, skip=_not_a_file)
