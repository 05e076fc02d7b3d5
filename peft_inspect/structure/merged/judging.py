"""Every tensor that an adapter changes, in a merged checkpoint: merged as PEFT merges it, or what happened instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from peft_inspect.load.quiet import quiet
from peft_inspect.records import AdapterFile, InspectionError, MergedTensor, MergedWeights, text_of
from peft_inspect.structure.merged.checkpoint import Stored, pieces, read_checkpoint
from peft_inspect.structure.merged.comparing import Comparison
from peft_inspect.structure.merged.replay import Replay, precisions
from peft_inspect.structure.merged.sources import Source, Sources
from peft_inspect.structure.owners import Owner
from peft_inspect.structure.saved_keys import SavedKeys

_PIECE = 1 << 22  # elements of a tensor that are in memory at a time


@dataclass(frozen=True)
class _Place:
    """A parameter that the adapter changes."""

    name: str  # of the model without an adapter
    layer: str  # path of the adapter layer, from the owner on
    module: nn.Module
    weight: str  # of the base layer


def judged_merge(file: AdapterFile, owner: Owner, name: str, merged: Path, base: Path) -> MergedWeights:
    """The merged checkpoint against the base with the adapter merged anew.

    Args:
        file: the adapter.
        owner: the live PeftModel with the layers of the adapter; none of its values are read.
        name: of the adapter there.
        merged: the folder of the merged model.
        base: the folder of its base.

    Raises:
        InspectionError: a checkpoint cannot be read.
    """
    keys = SavedKeys(owner, name)
    model: Any = getattr(owner.module, "get_base_model", lambda: owner.module)()
    names = {_plain(path) for path, _ in model.named_parameters(remove_duplicate=False) if "lora_" not in path}
    stored = _adapter_tensors(file)
    found = {
        keys.live[key]: stored[tensor.key]
        for tensor in keys.loaded(file.tensors)
        if (key := tensor.loads_as or tensor.key) in keys.live and tensor.key in stored
    }
    judge = _Judge(model, name, found, Sources(read_checkpoint(base), model, names), Sources(read_checkpoint(merged), model, names))
    results = list(judge.all(owner))
    return MergedWeights(str(merged), str(base), tuple(results), judge.exact)


def _adapter_tensors(file: AdapterFile) -> Mapping[str, Stored]:
    from peft_inspect.load.adapter.safetensors_header import read_header

    path = Path(file.path) / "adapter_model.safetensors"
    try:
        with path.open("rb") as opened:
            return {key: Stored(path, entry) for key, entry in read_header(path, opened).items()}
    except OSError as error:
        raise InspectionError(f"{path} cannot be read: {error.strerror}") from error


def _plain(path: str) -> str:
    """A parameter's path as it is without an adapter."""
    for part in (".base_layer", ".original_module", ".token_adapter"):
        path = path.replace(part, "")
    return path


class _Judge:
    """Goes through the layers of one adapter; `exact` counts the tensors that are equal bit for bit."""

    def __init__(self, model: nn.Module, name: str, found: Mapping[str, Stored], base: Sources, merged: Sources) -> None:
        self._model, self._name, self._found, self._base, self._merged = model, name, found, base, merged
        self.exact = 0

    def all(self, owner: Owner) -> Iterator[MergedTensor]:
        """Every tensor that the adapter changes."""
        prefix = next((path for path, module in owner.module.named_modules() if module is self._model), "")
        for path, module in self._model.named_modules():
            live = f"{prefix}.{path}".strip(".")
            if isinstance(module, BaseTunerLayer):
                yield from self._layer(path, live, owner, module)
            elif isinstance(module, ModulesToSaveWrapper):
                yield from self._saved(path, live, owner)

    def _layer(self, path: str, live: str, owner: Owner, module: Any) -> Iterator[MergedTensor]:
        inside = {key.removeprefix(f"{live}."): stored for key, stored in self._found.items() if key.startswith(f"{live}.")}
        own = {key: stored for key, stored in inside.items() if not key.startswith("base_layer.")}
        base = module.get_base_layer()
        held = [leaf for leaf, _ in base.named_parameters(recurse=False) if leaf == "weight" or any(key.endswith(".bias") for key in own)]
        weights = [module.parameter_name] if isinstance(module, ParamWrapper) else held
        for key, stored in inside.items():
            if key not in own and key.rpartition(".")[2] == "bias":  # trained as it is, beside the adapter
                yield self._trained(f"{_plain(path)}.bias", f"{owner.path}.{live}".strip("."), stored)
        if own and not weights:
            why = f"a {type(base).__name__} holds its weights in another form"
            yield MergedTensor(_plain(path), f"{owner.path}.{live}".strip("."), "unjudged", why=why)
        for weight in weights if own else ():
            place = _Place(f"{_plain(path)}.{weight}", f"{owner.path}.{live}".strip("."), module, weight)
            yield self._judged(place, own)

    def _judged(self, place: _Place, own: Mapping[str, Stored]) -> MergedTensor:
        base, merged = self._base.of(place.name), self._merged.of(place.name)
        if base is None or merged is None:
            which = "base" if base is None else "merged checkpoint"
            verdict, why = (
                ("absent" if merged is None and base is not None else "unjudged"),
                f"the {which} has no tensor that becomes {place.name}",
            )
            return MergedTensor(place.name, place.layer, verdict, why=why)  # type: ignore[arg-type]
        try:
            with quiet():
                return self._compared(place, own, base, merged)
        except Exception as error:  # a tuner that cannot be merged, a quantised base, a conversion that does not fit
            return MergedTensor(place.name, place.layer, "unjudged", why=text_of(error))

    def _compared(self, place: _Place, own: Mapping[str, Stored], base: Source, merged: Source) -> MergedTensor:
        values = {key: stored.read() for key, stored in own.items()}
        replay = Replay(place.module, self._name, values, place.weight)
        adapter = next(iter(values.values())).dtype
        comparison = Comparison(precisions(base.stored[0].dtype, merged.stored[0].dtype, adapter))
        for start, stop, before, after in self._pieces(place.name, base, merged, replay.rows):
            if before.shape != after.shape:
                why = f"its shape is {list(after.shape)} where the base has {list(before.shape)}"
                return MergedTensor(place.name, place.layer, "unjudged", why=why)
            comparison.add(before, after, partial(replay.merged, start=start, stop=stop, base=before))
            if comparison.decided:
                break
        self.exact += comparison.exact
        return MergedTensor(place.name, place.layer, *comparison.verdict())

    def _pieces(self, name: str, base: Source, merged: Source, rows: int | None) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """The rows of both checkpoints, in pieces where both the merge and the files allow it."""
        if base.whole or merged.whole or rows is None:
            before = base.fused(name, self._model) if base.whole else base.stored[0].read()
            after = merged.fused(name, self._model) if merged.whole else merged.stored[0].read()
            if rows is None or before.shape != after.shape:
                yield 0, len(before), before, after
                return
            yield from ((start, stop, before[start:stop], after[start:stop]) for start, stop in pieces(tuple(before.shape), _PIECE, rows))
            return
        first, second = base.stored[0], merged.stored[0]
        if first.shape != second.shape:
            yield (
                0,
                first.shape[0],
                first.read(0, 1),
                second.read(0, 1)[:, :1] if first.shape[1:] == second.shape[1:] else second.read(0, 1),
            )
            return
        for start, stop in pieces(first.shape, _PIECE, rows):
            yield start, stop, first.read(start, stop), second.read(start, stop)

    def _saved(self, path: str, live: str, owner: Owner) -> Iterator[MergedTensor]:
        """Modules that were trained in full: the merged checkpoint holds the trained copy."""
        below = f"{live}.modules_to_save.{self._name}."
        for key, stored in self._found.items():
            if not key.startswith(below):
                continue
            yield self._trained(f"{path}.{key.removeprefix(below)}", f"{owner.path}.{live}".strip("."), stored)

    def _trained(self, name: str, layer: str, trained: Stored) -> MergedTensor:
        """A tensor that the adapter holds as it is to be."""
        merged, base = self._merged.of(name), self._base.of(name)
        if merged is None or merged.whole:
            return MergedTensor(name, layer, "absent" if merged is None else "unjudged", why=f"the merged checkpoint has no tensor {name}")
        after = merged.stored[0]
        if after.shape != trained.shape:
            why = f"its shape is {list(after.shape)}, that of the adapter {list(trained.shape)}"
            return MergedTensor(name, layer, "unjudged", why=why)
        same, unchanged = True, base is not None and not base.whole and base.stored[0].shape == after.shape
        for start, stop in pieces(after.shape, _PIECE):
            value = after.read(start, stop)
            same = same and torch.equal(value, trained.read(start, stop).to(after.dtype))
            unchanged = unchanged and base is not None and torch.equal(value, base.stored[0].read(start, stop).to(after.dtype))
        self.exact += same
        return MergedTensor(name, layer, "merged" if same else "not applied" if unchanged else "other")
