"""Tensors of the adapter file have another rank or size than the model's adapter layers.

PEFT refuses such a file, or, with `ignore_mismatched_sizes=True`, leaves these layers as they
were initialised. It happens when the rank in the config is not the one the adapter was trained
with, or when the vocabulary was resized.

Use the adapter_config.json that was saved with the weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import AdapterFile, Conversion, Finding, Severity
from peft_inspect.rules.adapter_examples import adapted, saved
from peft_inspect.rules.adapter_match import Match, incomparable, loaded, match, shown
from peft_inspect.rules.adapter_ranks import fields_of_rank
from peft_inspect.rules.examples import text_batch
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import settings


def check(file: AdapterFile) -> Iterator[Finding]:
    """Mismatched tensors, unless the whole base has other sizes."""
    fit = match(file)
    if not fit.mismatched or fit.other_width:
        return
    if fit.ranks_saved or fit.transposed:
        yield _sliced(fit, file, fit.ranks_saved) if fit.ranks_saved else _transposed(fit, file)
        return
    ranks = sorted({mismatch.ranks for mismatch in fit.mismatched if mismatch.ranks})
    first = fit.mismatched[0]
    if ranks:
        how = ", ".join(f"rank {found} in the file and {wanted} in the model" for found, wanted in ranks)
        fields = fields_of_rank(fit, file)
        build = f"build the adapter with the rank of the file ({settings(fields)}): " if fields else ""
        fix = f"{build}use the adapter_config.json that was saved with it"
    else:
        how = f"{shown(first.tensor.key)} is {list(first.tensor.shape)} in the file and {list(first.wanted)} in the model"
        fix = "load the adapter onto the base it was trained on, with the same vocabulary size and the adapter_config.json saved with it"
    yield RULE.finding(
        f"{len(fit.mismatched)} of {len(file.tensors)} tensors in {file.path} have another shape than the model: {how}",
        (file.layer_of[loaded(mismatch.tensor)] for mismatch in fit.mismatched),
        facts={
            "file": file.path,
            "mismatched": len(fit.mismatched),
            "shapes": {mismatch.tensor.key: [list(mismatch.tensor.shape), list(mismatch.wanted)] for mismatch in fit.mismatched[:8]},
            "ranks": [list(pair) for pair in ranks],
        },
        fix=fix,
    )


def _sliced(fit: Match, file: AdapterFile, ranks: int) -> Finding:
    first = fit.mismatched[0]
    return RULE.finding(
        f"{file.path} holds one slice of {ranks} of the adapter: each of {len(fit.mismatched)} tensors has 1/{ranks} of the rows "
        f"(dimension 0), {shown(first.tensor.key)} {list(first.tensor.shape)} of {list(first.wanted)}, as one rank of {ranks} holds them "
        "in a sharded training",
        (file.layer_of[loaded(mismatch.tensor)] for mismatch in fit.mismatched),
        facts={"file": file.path, "mismatched": len(fit.mismatched), "sliced": {"dimension": 0, "ranks": ranks}},
        fix=f"save the full state, gathered from all {ranks} ranks (get_model_state_dict with full_state_dict=True, or accelerate's "
        "get_state_dict), or put the slices of all ranks together along dimension 0",
    )


def _transposed(fit: Match, file: AdapterFile) -> Finding:
    first = fit.mismatched[0]
    return RULE.finding(
        f"{len(fit.mismatched)} of {len(file.tensors)} tensors in {file.path} are transposed: {shown(first.tensor.key)} is "
        f"{list(first.tensor.shape)} where PEFT has {list(first.wanted)}",
        (file.layer_of[loaded(mismatch.tensor)] for mismatch in fit.mismatched),
        facts={"file": file.path, "mismatched": len(fit.mismatched), "transposed": True},
        conversion=Conversion({mismatch.tensor.key: mismatch.tensor.key for mismatch in fit.mismatched}, transposed=True),
        fix="transpose each of them: the tool that saved them keeps a factor as inputs by rank, PEFT as rank by inputs",
    )


def broken() -> Example:
    """Trained with rank 8, loaded into rank 4."""
    return Example(adapted(r=4), text_batch(), adapter=saved(adapted(r=8)))


def fixed() -> Example:
    """The rank it was trained with."""
    return Example(adapted(r=8), text_batch(), adapter=saved(adapted(r=8)))


RULE = Rule("PI403", "adapter-shape-mismatch", Severity.ERROR, over=AdapterFile, check=check, broken=broken, fixed=fixed, skip=incomparable)
