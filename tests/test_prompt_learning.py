"""Prompts, prefixes and the like add no layers: what they train is counted and judged as the weights of any adapter are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaptionPromptConfig,
    CPTConfig,
    MultitaskPromptTuningConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from torch import nn

import peft_inspect
from peft_inspect.rules.examples import text_batch, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore")

TASK = {"task_type": "CAUSAL_LM"}
METHODS: dict[str, tuple[Any, int]] = {  # the config, and how many tensors it trains on a tiny Llama
    "prompt": (PromptTuningConfig(**TASK, num_virtual_tokens=3), 1),
    "prefix": (PrefixTuningConfig(**TASK, num_virtual_tokens=3), 1),
    "projected prefix": (PrefixTuningConfig(**TASK, num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=8), 5),
    "p-tuning": (PromptEncoderConfig(**TASK, num_virtual_tokens=3, encoder_hidden_size=8), 7),
    "multitask": (MultitaskPromptTuningConfig(**TASK, num_virtual_tokens=3, num_tasks=2), 3),
    "context": (CPTConfig(**TASK, cpt_token_ids=[1, 2], cpt_mask=[1, 1], cpt_tokens_type_mask=[3, 4]), 1),
    "adaption prompt": (AdaptionPromptConfig(**TASK, adapter_len=2, adapter_layers=1), 2),
}


class Around(nn.Module):
    """A module of the user's that holds a PeftModel and has a head of its own."""

    def __init__(self, run: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = get_peft_model(tiny_llama(), PromptTuningConfig(**TASK, num_virtual_tokens=3))
        self.head = nn.Linear(self.inner.config.vocab_size, 2)
        self.run = run

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.run(self.inner, input_ids)).square().mean()


def through_the_model(inner: Any, ids: torch.Tensor) -> torch.Tensor:
    return inner(input_ids=ids).logits


def around_the_model(inner: Any, ids: torch.Tensor) -> torch.Tensor:
    return inner.get_base_model()(input_ids=ids).logits  # HERE


def before_embeddings(inner: Any, prompt: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    base = inner.get_base_model()
    return base(inputs_embeds=torch.cat([prompt, base.get_input_embeddings()(ids)], 1)).logits


def made_by_hand(inner: Any, ids: torch.Tensor) -> torch.Tensor:
    return before_embeddings(inner, inner.get_prompt(batch_size=len(ids)), ids)


def made_without_gradients(inner: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():  # HERE
        prompt = inner.get_prompt(batch_size=len(ids))
    return before_embeddings(inner, prompt, ids)


def as_it_is_saved(inner: Any, ids: torch.Tensor) -> torch.Tensor:
    prompt = inner.get_prompt_embedding_to_save("default").expand(len(ids), -1, -1)  # HERE
    return before_embeddings(inner, prompt, ids)


def marked_line(function: Callable[..., Any]) -> int:
    return next(
        function.__code__.co_firstlineno + offset
        for offset, line in enumerate(Path(__file__).read_text(encoding="utf-8").splitlines()[function.__code__.co_firstlineno - 1 :])
        if line.endswith("# HERE")
    )


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_trains_is_counted_and_gets_its_gradient(method: str) -> None:
    config, count = METHODS[method]
    torch.manual_seed(0)
    model = get_peft_model(tiny_llama(), config)
    batch = text_batch()
    if method == "context":
        batch |= {"input_type_mask": torch.full_like(batch["input_ids"], 4)}
    if method == "multitask":
        batch |= {"task_ids": torch.zeros(len(batch["input_ids"]), dtype=torch.long)}
    report = peft_inspect.check(model, batch)
    assert [finding.code for finding in report.findings if finding.severity != "note"] == []
    assert report.trace is not None
    assert [row.layer is not None for row in report.trace.gradients] == [True] * count
    assert {row.state for row in report.trace.gradients} <= {"ok", "zero-at-init"}
    (adapter,) = report.structure.adapters
    assert adapter.parameters == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_frozen_prompts_are_found_frozen() -> None:
    model = get_peft_model(tiny_llama(), PrefixTuningConfig(**TASK, num_virtual_tokens=3))
    model.requires_grad_(False)
    model.base_model.lm_head.requires_grad_(True)
    report = peft_inspect.gradcheck(model, text_batch())
    (finding,) = (finding for finding in report.findings if finding.severity == "error")
    assert (finding.code, finding.fix_verified) == ("PI302", True)


@pytest.mark.parametrize(
    ("run", "code"),
    [(around_the_model, "PI202"), (made_without_gradients, "PI303"), (as_it_is_saved, "PI305")],
    ids=["base", "no grad", "saved"],
)
def test_the_line_that_loses_a_prompt_is_named_and_its_fix_is_tried(run: Callable[..., Any], code: str) -> None:
    report = peft_inspect.gradcheck(Around(run), {"input_ids": text_batch()["input_ids"]})
    (finding,) = report.findings
    assert (finding.code, finding.fix_verified, finding.modules) == (code, True, ("inner.prompt_encoder.default",))
    assert finding.source is not None
    assert finding.source.line == marked_line(run)


@pytest.mark.parametrize("run", [through_the_model, made_by_hand])
def test_prompts_that_are_used_are_sound(run: Callable[..., Any]) -> None:
    assert peft_inspect.gradcheck(Around(run), {"input_ids": text_batch()["input_ids"]}).findings == ()


@pytest.mark.parametrize(("run", "codes"), [(through_the_model, []), (as_it_is_saved, ["PI305"])])
def test_the_program_s_own_step_is_judged_too(run: Callable[..., Any], codes: list[str]) -> None:
    model = Around(run)
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    with peft_inspect.watch(fail_on="never") as watching:
        for _ in range(3):
            model(text_batch()["input_ids"]).backward()
            optimizer.step()
    assert watching.report is not None
    assert [finding.code for finding in watching.report.findings] == codes
