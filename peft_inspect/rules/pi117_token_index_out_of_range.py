"""`trainable_token_indices` names tokens that the vocabulary does not have.

The ids come from a larger vocabulary: new tokens were added to the tokenizer and the embeddings were
not resized, or the base is another one. PEFT looks the rows up when it makes or loads the adapter, and
ends in an IndexError that names neither the field nor the tokens; negative ids silently count from the end.

Resize the embeddings before the wrapping (`model.resize_token_embeddings(len(tokenizer))`), or name tokens that exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from peft_inspect.records import AdapterInfo, Finding, Origin, Severity, Structure
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import ranges, setting_fix

if TYPE_CHECKING:
    import torch


_OTHERS = "name tokens that exist"


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter and embedding, the tokens for which there is no row."""
    for adapter in structure.adapters:
        for name, indices in _asked(adapter).items():
            held = _rows(structure, adapter, name)
            if held is None:
                continue
            path, rows = held
            if beyond := [index for index in indices if not 0 <= index < rows]:
                kept = [index for index in indices if index not in beyond]
                suggestion = {"trainable_token_indices": kept if name is None else {name: kept}} if kept else {}
                yield RULE.finding(
                    f"adapter {adapter.name!r}: trainable_token_indices names {ranges(beyond)}, and {path} has the rows 0–{rows - 1}",
                    [path],
                    adapter=adapter.name,
                    facts={"out_of_range": beyond, "rows": rows},
                    suggestion=suggestion,
                    origin=Origin("adapter-config", ("trainable_token_indices",), adapter.name),
                    fix=f"resize the embeddings before the wrapping, with model.resize_token_embeddings, or {setting_fix(suggestion, _OTHERS)}",
                )


def _asked(adapter: AdapterInfo) -> dict[str | None, list[int]]:
    """The tokens by the name of the embedding; None for that of the inputs."""
    asked = adapter.config.get("trainable_token_indices") or {}
    return {str(name): list(indices) for name, indices in asked.items()} if isinstance(asked, Mapping) else {None: list(asked)}


def _rows(structure: Structure, adapter: AdapterInfo, name: str | None) -> tuple[str, int] | None:
    """The embedding and how many rows it has."""
    marks = (".token_adapter.base_layer.weight", ".original_module.weight")
    for parameter in structure.parameters:
        path = next((parameter.path.removesuffix(mark) for mark in marks if parameter.path.endswith(mark)), None)
        wrapped = path is not None and path.startswith(adapter.owner) and f"{path}.token_adapter" in structure.module
        if path is not None and wrapped and (name is None or path == name or path.endswith(f".{name}")):
            return path, parameter.shape[0]
    return None


def broken() -> Example:
    """Two new tokens, behind the end of a vocabulary of 64, on a model that is not resized."""
    return Example(_weightless([63, 64, 65]), text_batch())


def fixed() -> Example:
    """The last two tokens."""
    return Example(_weightless([62, 63]), text_batch())


def _weightless(indices: list[int]) -> torch.nn.Module:
    """Without weights, as large models are inspected: with weights PEFT refuses the broken one."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj"], trainable_token_indices=indices)
    return get_peft_model(tiny_llama().to("meta"), config, low_cpu_mem_usage=True)


RULE = Rule("PI117", "token-index-out-of-range", Severity.ERROR, over=Structure, check=check, broken=broken, fixed=fixed)
