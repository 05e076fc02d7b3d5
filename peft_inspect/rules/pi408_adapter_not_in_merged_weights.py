"""A merged checkpoint does not contain the adapter that it is said to contain.

Scripts that merge sharded or quantised models lose layers, merge twice, or scale by `lora_alpha` where
`lora_alpha / r` is meant; what is served then is the base model, or something nobody trained, and loads
without a word. The merge is made anew from the base and the adapter by PEFT's own code, in the usual
precisions, and compared tensor by tensor; no estimate of what might have been is made where bits decide.

    peft-inspect check MERGED --adapter ADAPTER --base BASE

Merge again from the base: `PeftModel.from_pretrained(base, adapter).merge_and_unload()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peft_inspect.records import AdapterFile, Finding, MergedTensor, MergedWeights, Severity, Verdict
from peft_inspect.rules.adapter_examples import adapted, merged, saved
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import ranges

_FAULTS: tuple[Verdict, ...] = ("not applied", "absent", "twice", "scaled", "other")
_SAID = {
    "not applied": "are those of the base: the adapter was not applied",
    "absent": "are not there",
    "twice": "have the adapter in them twice",
    "scaled": "have the adapter in them with another scaling, {factor} times its own",
    "other": "hold neither the base nor the base with this adapter: another adapter, another base, or another training",
}


def check(file: AdapterFile) -> Iterator[Finding]:
    """What is not merged, and, as a note, what could not be judged."""
    held = file.merged
    if held is None:
        return
    wrong = [tensor for tensor in held.tensors if tensor.verdict in _FAULTS]
    unjudged = [tensor for tensor in held.tensors if tensor.verdict == "unjudged"]
    if wrong:
        yield RULE.finding(
            f"{held.path} does not contain the adapter {file.path}: {'; '.join(_groups(held, wrong))}",
            (tensor.layer for tensor in wrong),
            facts=_facts(held),
            fix=f"merge {file.path} into {held.base} again, into every layer and once: "
            "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(…)",
        )
    if unjudged:
        yield RULE.finding(
            f"{len(unjudged)} of {len(held.tensors)} tensors of {held.path} could not be judged: {unjudged[0].name}, for one: {unjudged[0].why}",
            (tensor.layer for tensor in unjudged),
            facts=_facts(held),
            fix="compare these by loading the merged model and the base with its adapter, and their outputs",
            severity=Severity.NOTE,
        )


def _groups(held: MergedWeights, wrong: Sequence[MergedTensor]) -> Iterator[str]:
    """Tensors with one fault in one sentence, with the layers they are in where these are not all."""
    for verdict in _FAULTS:
        of_this = [tensor for tensor in wrong if tensor.verdict == verdict]
        for factor in dict.fromkeys(tensor.factor if verdict == "scaled" else None for tensor in of_this):
            group = [tensor for tensor in of_this if verdict != "scaled" or tensor.factor == factor]
            blocks = sorted({int(part) for tensor in group for part in tensor.name.split(".")[:-1] if part.isdigit()})
            where = f" (layers {ranges(blocks)})" if blocks and len(group) < len(held.tensors) else ""
            example = "" if len(group) == len(held.tensors) else f", {group[0].name} for one,"
            yield f"{len(group)} of {len(held.tensors)} tensors{where}{example} {_SAID[verdict].format(factor=factor)}"


def _facts(held: MergedWeights) -> dict[str, object]:
    verdicts = [tensor.verdict for tensor in held.tensors]
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    return {"merged": held.path, "base": held.base, "tensors": len(verdicts), "exact": held.exact, "verdicts": counts}


def _without(file: AdapterFile) -> str | None:
    return None if file.merged else "no merged checkpoint is compared: check MERGED --adapter ADAPTER --base BASE"


def broken() -> Example:
    """Saved without the merge: the weights are those of the base."""
    model = adapted()
    return Example(model, adapter=saved(model), merged=merged(model, applied=False))


def fixed() -> Example:
    """Merged by PEFT."""
    model = adapted()
    return Example(model, adapter=saved(model), merged=merged(model))


RULE = Rule(
    "PI408", "adapter-not-in-merged-weights", Severity.ERROR, over=AdapterFile, check=check, broken=broken, fixed=fixed, skip=_without
)
