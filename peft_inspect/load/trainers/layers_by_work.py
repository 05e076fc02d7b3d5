"""Layers of transformers' models by what they do, for trainers that build models of their own and name layers by their work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from peft_inspect.layer_names import names_for, same_work
from peft_inspect.load.trainers.recognised import Chosen
from peft_inspect.load.trainers.search import as_targets, expert_parameters, language_model, last

_ROUTER = re.compile(r"(^|\.)(router|gate)$")
_ATTENTION = re.compile(r"att(entio)?n|\.(q|k|v|o)$", re.IGNORECASE)
_QKV = ("query", "key", "value")
_HALVES = ("gate", "up")


class Layers:
    """The linear layers and fused experts of a base model, or of a part of it."""

    def __init__(self, model: Any, inside: str | None = None, without: Iterable[str] = ()) -> None:
        import torch
        from transformers.pytorch_utils import Conv1D

        self.model = model
        self.inside = language_model(model) if inside is None else inside
        out = tuple(without)
        self.paths = [
            path
            for path, module in model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D) and self._is_inside(path) and not any(part in path for part in out)
        ]
        self.head = self._head()

    def paths_for(self, work: str) -> list[str]:
        """The layers that do a work."""
        if work == "head":
            return [self.head] if self.head else []
        if work == "router":
            return [path for path in self.paths if _ROUTER.search(path)]
        body = [path for path in self.paths if path != self.head and not _ROUTER.search(path)]
        exact = [path for path in body if last(path) == names_for(work)[0]]
        found = exact or same_work(names_for(work)[0], body)
        # One name may stand for the ends of both halves of a block.
        right = [path for path in found if bool(_ATTENTION.search(path)) == (work in (*_QKV, "attention output"))]
        return right or found

    def experts_for(self, works: Iterable[str]) -> list[str]:
        """The fused expert parameters that do one of these works."""
        wanted = {name for work in works if work != "router" for name in names_for(work)}
        inside = [path for path in expert_parameters(self.model) if self._is_inside(path)]
        return [path for path in inside if last(path) in wanted]

    def chosen(self, works: list[str], trainer: str, fields: Mapping[str, Any]) -> Chosen:
        """The targets of a trainer that adapts these works, with notes where layers hold more than it adapts."""
        by_work = {work: self.paths_for(work) for work in works}
        paths = [path for work in works for path in by_work[work]]
        experts = self.experts_for(works)
        chosen: dict[str, Any] = {"target_modules": as_targets(paths, self.model)}
        if experts:
            chosen["target_parameters"] = sorted({".".join(path.split(".")[-3:]) for path in experts})
        notes = [*self._wider(works, by_work, trainer), *self._absent(works, by_work, experts, trainer)]
        if experts and fields.get("lora_dropout"):
            notes.append(f"warning: {trainer} has dropout on the experts' adapters, and PEFT has none for fused experts")
        return Chosen(chosen, tuple(notes))

    def _wider(self, works: list[str], by_work: Mapping[str, list[str]], trainer: str) -> list[str]:
        """One matrix here holds what the trainer keeps apart, and only a part of it is asked for."""
        notes = []
        for group in (_QKV, _HALVES):
            asked = [work for work in group if work in works]
            left = [work for work in group if work not in works]
            if not asked or not left:
                continue
            both = set(by_work[asked[0]]).intersection(*(self.paths_for(work) for work in left))
            if both:
                name, alone = last(min(both)), " and ".join(asked)
                notes.append(
                    f"warning: {trainer} adapts {alone} alone; here {name} holds {' and '.join(left)} as well, and is adapted whole"
                )
        return notes

    def _absent(self, works: list[str], by_work: Mapping[str, list[str]], experts: list[str], trainer: str) -> list[str]:
        moe = {work for work in ("gate", "up", "down") if experts}
        missing = [work for work in works if not by_work[work] and work not in moe and work not in ("router", "gate")]
        return [
            f"warning: no layer of {type(self.model).__name__} is known to do the work of {work} that {trainer} adapts" for work in missing
        ]

    def _head(self) -> str | None:
        try:
            head = self.model.get_output_embeddings()
        except (AttributeError, NotImplementedError):
            return None
        return next((path for path, module in self.model.named_modules() if module is head), None) if head is not None else None

    def _is_inside(self, path: str) -> bool:
        return not self.inside or path.startswith(f"{self.inside}.") or path == "lm_head"
