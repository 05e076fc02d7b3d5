"""An adapter that is meant for use changes nothing: all its layers are at their initialisation.

One factor of every pair is exactly zero, as it was before the first step, so the outputs are
those of the base model. The training that made it did not reach it: no gradients arrived, the
optimizer did not hold it, or its weights were not gathered when it was saved.

Find out with `peft-inspect gradcheck` on the training script, and train again.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import AdapterFile, Finding, Severity, TensorInfo
from peft_inspect.rules.adapter_examples import adapted, saved
from peft_inspect.rules.adapter_match import adapter_paths, loaded
from peft_inspect.rules.examples import text_batch
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import quoted


def check(file: AdapterFile) -> Iterator[Finding]:
    """Every adapter layer has a weight that is zero throughout, or multiplies by one. Biases are zero in trained adapters too."""
    layers = _layers(file)
    weights = [[tensor for tensor in tensors if not tensor.key.endswith(".bias")] for tensors in layers.values()]
    if weights and all(any(tensor.zero or _multiplies_by_one(tensor) for tensor in of_layer) for of_layer in weights):
        where = f"the adapter {file.adapter!r}" if file.in_memory else file.path
        yield RULE.finding(
            f"{where} changes nothing: each of its adapter layers ({len(layers)}) has a factor that is exactly zero, as before the first step",
            layers,
            adapter=file.adapter,
            facts={
                "file": file.path or None,
                "layers": len(layers),
                **({"trained": list(file.trained_below)} if file.trained_below else {}),
            },
            fix=_fix(file),
            explains=file.in_memory,  # loaded for use; beside a file that was named, the model may be one to be trained
        )


def _fix(file: AdapterFile) -> str:
    if file.trained_below:
        return (
            f"load the sub-folder {quoted(file.trained_below)} of {file.path}, which holds a trained adapter: this one was saved untrained"
        )
    return "run `peft-inspect gradcheck` on the training script to see why nothing was trained, and train again"


def _multiplies_by_one(tensor: TensorInfo) -> bool:
    return bool(tensor.one) and "ia3_l" in tensor.key.split(".")


def _layers(file: AdapterFile) -> dict[str, list[TensorInfo]]:
    """The tensors of each adapter layer; heads and other modules saved whole are none."""
    built = adapter_paths(file)
    grouped: dict[str, list[TensorInfo]] = {}
    for tensor in file.tensors:
        layer = file.layer_of.get(loaded(tensor))
        if layer in built:
            grouped.setdefault(str(layer), []).append(tensor)
    return grouped


def _without_values(file: AdapterFile) -> str | None:
    layers = _layers(file)
    if not layers:
        return "no adapter file was named" if file.in_memory else "no tensor of the file belongs to an adapter layer of the model"
    unknown = all(tensor.zero is None for tensors in layers.values() for tensor in tensors)
    return "needs the values of the adapter, which were not read" if unknown else None


def broken() -> Example:
    """Saved before the first step."""
    model = adapted(trained=False)
    return Example(model, text_batch(), adapter=saved(model))


def fixed() -> Example:
    """Saved after the training."""
    model = adapted()
    return Example(model, text_batch(), adapter=saved(model))


RULE = Rule("PI407", "untrained-adapter", Severity.WARNING, over=AdapterFile, check=check, broken=broken, fixed=fixed, skip=_without_values)
