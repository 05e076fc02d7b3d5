"""Trying a batch where signature and config leave room for doubt, and mending it by what the model complains of."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Callable, Iterator

import torch

from peft_inspect.batch import bare, labels, resize, rest, text
from peft_inspect.batch.plan import TEXT_LENGTH, Placeholder, Plan
from peft_inspect.batch.rest import give_documented
from peft_inspect.batch.towers import MODALITIES

_ATTEMPTS = 24
_EXCLUSIVE = re.compile(r"both|same time|exactly one|only one", re.IGNORECASE)
_WORD = re.compile(r"\b[a-z_]\w*")
_NOT_FOUND = re.compile(r" (\w+)=None\b")
_ASSIGNED = re.compile(r"^\s*[\w, .]+ = ")
_IN_A_LIBRARY = re.compile(r"[/\\](torch|peft)[/\\]")
_MADE_BY_THE_MODEL = re.compile(r"past|cache|position_ids|output|head_mask|label")
_LABELS_WANTED = re.compile(r"labels? (must|need|should|has|have)\b.*\b(provided|given|passed)", re.IGNORECASE)
_NO_LABELS = "no labels"
_TEXTUAL = ("input_ids", "mm_token_type_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "labels")
_ORDINARY = re.compile(
    r"^(decoder_|encoder_)?(input_ids|attention_mask|position_ids|inputs_embeds|head_mask|hidden_states|outputs)$|^cross_attn_head_mask$|"
    r"^(token_type_ids|labels|past_key_values|cache_\w+|use_cache|logits_to_keep|return_dict|output_\w+|start_positions|end_positions)$"
)
_COUNTS = re.compile(
    r"(\w+) (?:features and \w+ tokens do not match,? tokens: |placeholder tokens \()(\d+)"
    r"(?:,? features:? |\) does not match number of \w+ tokens from \w+ \()(\d+)",
    re.IGNORECASE,
)
_LENGTHS = re.compile(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension 1")

_WRITTEN = re.compile(r"value tensor of shape \[(\d+), \d+\] cannot be broadcast to indexing result of shape \[0, ")


def needs_trial(plan: Plan) -> bool:
    """Whether the forward takes anything beyond text, reads several streams of it, has no head of its own, or is the user's own."""
    target = plan.target
    plain = "labels" in target.parameters and not isinstance(getattr(plan.config, "num_codebooks", None), int)
    streams = any("*" in "".join(shape) for shape in target.documented.values())
    return target.own or not plain or streams or not all(_ORDINARY.match(name) for name in target.parameters)


def settle(plan: Plan) -> None:
    """Run the forward without gradients, and mend the batch until it passes or nothing is left to mend.

    A batch that cannot be mended stays as it was first made, so that the run itself reports what is wrong with it.
    """
    first, notes = dict(plan.inputs), list(plan.notes)
    if plan.alternatives:  # after all others the first again, for the mends that come then
        plan.alternatives.append({name: first.get(name) for layout in plan.alternatives for name in layout})
    for _ in range(_ATTEMPTS):
        complaint = _complaint(plan)
        if complaint is None:
            return
        if not any(mend(plan, complaint) for mend in _MENDS):
            break
    if _complaint(plan) is not None:
        plan.inputs.clear()
        plan.inputs.update(first)
        plan.notes[:] = notes


def _complaint(plan: Plan) -> str | None:
    try:
        with torch.no_grad():
            plan.target.called(**plan.target.spelled(plan.inputs))
    except Exception as error:  # whatever the model raises is what there is to mend
        return " ".join([str(error) or type(error).__name__, *_absent(error), *_embeddings(error)])
    return None


def _absent(error: Exception) -> Iterator[str]:
    """`name=None` for what the failing line, and the calls that led to it, read and did not find: the error itself rarely names it."""
    if "None" not in str(error):
        return
    steps = zip(traceback.walk_tb(error.__traceback__), traceback.extract_tb(error.__traceback__), strict=True)
    for (frame, _), entry in reversed([step for step in steps if not _IN_A_LIBRARY.search(step[1].filename)]):
        first: int = entry.lineno or 0
        last: int = getattr(entry, "end_lineno", None) or first  # Python 3.10 does not say
        lines = "".join(linecache.getline(entry.filename, number) for number in range(first, last + 1))
        names = [name for name in _WORD.findall(_ASSIGNED.sub("", lines)) if frame.f_locals.get(name, name) is None]
        if not names:
            return
        yield from (f"{name}=None" for name in dict.fromkeys(names) if not _MADE_BY_THE_MODEL.search(name))


def _embeddings(error: Exception) -> Iterator[str]:
    """`for N embeddings`: what an id out of range had to choose from; the error itself says so only without weights."""
    if isinstance(error, IndexError) and "embeddings" not in str(error):
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code is torch.nn.functional.embedding.__code__:
                yield f"for {frame.f_locals['weight'].shape[0]} embeddings"


def _count(plan: Plan, complaint: str) -> bool:
    """Another number of placeholders, where the model says how many features there are."""
    found = _COUNTS.search(complaint)
    if found is None or (plan.alternatives and all(run.counted for run in plan.placeholders)):
        return False
    modality, tokens, features = found[1].lower(), int(found[2]), int(found[3])
    for index, run in enumerate(plan.placeholders):
        if run.modality == modality and run.count * plan.size == tokens and features != tokens and features % plan.size == 0:
            plan.placeholders[index] = Placeholder(run.modality, run.token, features // plan.size, run.start, run.end)
            _rewrite(plan)
            return True
    return False


def _length(plan: Plan, complaint: str) -> bool:
    """Text as long as what is added to it, where the model adds features token by token."""
    found = _LENGTHS.search(complaint)
    if found is None or plan.placeholders or "input_ids" not in plan.inputs or int(found[1]) != plan.inputs["input_ids"].shape[-1]:
        return False
    if any("input_ids" in layout for layout in plan.alternatives):
        return False
    plan.text_length = int(found[2])
    _rewrite(plan)
    return True


def _positions(plan: Plan, complaint: str) -> bool:
    """As many positions for features as there are, where a mask over the text says where they go."""
    found = _WRITTEN.search(complaint)
    if found is None or plan.positions or "image_embeds_position_mask" not in plan.inputs or int(found[1]) % plan.size:
        return False
    plan.positions = int(found[1]) // plan.size
    plan.text_length = max(plan.text_length, plan.positions + TEXT_LENGTH)
    del plan.inputs["image_embeds_position_mask"]
    _rewrite(plan)
    return True


def _rewrite(plan: Plan) -> None:
    """Make everything with one entry per token again."""
    for name in _TEXTUAL:
        plan.inputs.pop(name, None)
    plan.notes[:] = [note for note in plan.notes if not note.startswith(_NO_LABELS)]
    text.make(plan)
    labels.make(plan)
    text.make_decoder(plan)


def _named(plan: Plan, complaint: str) -> bool:
    """What the complaint itself names and was not given; else the nearest of what the failing lines did not find."""
    if _EXCLUSIVE.search(complaint):
        return False
    said, absent = _NOT_FOUND.sub("", complaint), _NOT_FOUND.findall(complaint)
    named = [name for name in plan.target.parameters if "label" not in name and re.search(rf"\b{re.escape(name)}\b", said)]
    given = [name for name in named if _gave(plan, name)]
    return bool(given) or any(_gave(plan, name) for name in absent if name in plan.target.parameters)


def _gave(plan: Plan, name: str) -> bool:
    return give_documented(plan, name) or bare.give(plan, name)


def _all_labels(plan: Plan, complaint: str) -> bool:
    """Every label that is documented, where the model does not train without."""
    if not _LABELS_WANTED.search(complaint):
        return False
    given = [name for name in plan.target.documented if name.endswith("labels") and give_documented(plan, name)]
    return bool(given)


def _both(plan: Plan, complaint: str) -> bool:
    """Of two inputs that exclude each other, the later one goes; so does one that excludes what the model makes of the others."""
    if not _EXCLUSIVE.search(complaint):
        return False
    named = [name for name in plan.target.parameters if re.search(rf"\b{re.escape(name)}\b", complaint)]
    given = [name for name in plan.inputs if name in named]
    if not given or (len(given) == 1 and not _others(plan, given[0])):
        return False
    main = {getattr(module, "main_input_name", None) for module in plan.target.module.modules()}
    extra = next((name for name in reversed(given) if name not in main or len(given) == 1), given[-1])
    plan.drop(extra)
    plan.notes.append(f"{extra} not given: the model does not take it together with {' and '.join(sorted(set(named) - {extra}))}")
    return True


def _others(plan: Plan, name: str) -> bool:
    """Whether the batch brings content besides this input."""
    return any(other != name and value.is_floating_point() for other, value in plan.inputs.items() if isinstance(value, torch.Tensor))


def _another_layout(plan: Plan, complaint: str) -> bool:
    """The next way to lay out the main input."""
    del complaint
    if not plan.alternatives:
        return False
    for name, value in plan.alternatives.pop(0).items():
        if value is None:
            plan.inputs.pop(name, None)
        elif name not in plan.dropped:
            plan.inputs[name] = value
    return True


def _other_labels(plan: Plan, complaint: str) -> bool:
    """Labels of another meaning, for a forward of the user's own."""
    del complaint
    if not plan.label_choices or "labels" not in plan.inputs:
        return False
    plan.inputs["labels"] = plan.label_choices.pop(0)
    return True


def _without_labels(plan: Plan, complaint: str) -> bool:
    """Without labels, where the loss cannot be computed from them."""
    given = [name for name in plan.inputs if "label" in name or name in ("return_loss", "start_positions", "end_positions")]
    if not given or any(name in plan.target.required for name in given):
        return False
    for name in given:
        del plan.inputs[name]
    text.make_decoder(plan)
    plan.notes.append(
        f"{_NO_LABELS}: the model's own loss refused them ({complaint.splitlines()[0][:120]}); the outputs are summed instead"
    )
    return True


def _without_modality(plan: Plan, complaint: str) -> bool:
    """Without the inputs of another modality, where the text alone may run."""
    for modality in reversed(MODALITIES):
        if modality.argument in plan.inputs and modality.argument not in plan.target.required and "input_ids" in plan.inputs:
            companions = [name for name in plan.inputs if name not in _TEXTUAL and modality.name in name]
            for name in {modality.argument, *companions}:
                plan.drop(name)
            plan.placeholders[:] = [run for run in plan.placeholders if run.modality != modality.name]
            _rewrite(plan)
            plan.notes.append(f"{modality.name} not given: the forward refused every layout tried ({complaint.splitlines()[0][:120]})")
            return True
    return False


def _without_cache(plan: Plan, complaint: str) -> bool:
    """Without a cache, which training does not need and some configurations cannot size."""
    del complaint
    if not plan.wants("use_cache"):
        return False
    plan.give("use_cache", False)
    return True


def _optional(plan: Plan, complaint: str) -> bool:
    """One more of the optional inputs, where the model works on something that it was not given."""
    if "None" not in complaint and "unknown" not in complaint.lower():
        return False
    return any(give_documented(plan, name) for name in plan.target.documented if rest.is_input(name))


def _labels_at_fault(plan: Plan, complaint: str) -> bool:
    return bool(re.search(r"label|train|loss|target", complaint, re.IGNORECASE)) and _without_labels(plan, complaint)


_MENDS: tuple[Callable[[Plan, str], bool], ...] = (
    _count,
    _length,
    _both,
    _all_labels,
    resize.list_of_images,
    _named,
    _other_labels,
    _labels_at_fault,
    resize.vocabulary,
    _positions,
    resize.stacked_width,
    resize.number_of_patches,
    resize.image_size,
    resize.shorter_image,
    resize.longer,
    resize.rates,
    resize.one_sample,
    resize.length_of_view,
    resize.kind_of_mask,
    _another_layout,
    resize.width,
    resize.weighed_width,
    resize.dimensions,
    resize.codes,
    _optional,
    _without_cache,
    _without_labels,
    _without_modality,
)
