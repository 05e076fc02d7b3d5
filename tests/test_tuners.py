"""Every tuner of the installed PEFT that puts adapter layers into a model is watched with the same rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaptionPromptConfig, LoraConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner

import peft_inspect
from peft_inspect.rules.examples import text_batch, tiny_llama
from tests.versions import require_add_adapter

# Tuners warn about their own defaults, and about what the faults do to them.
pytestmark = pytest.mark.filterwarnings("ignore")

Loss = Callable[[Any, Any], torch.Tensor]

# What a tuner needs beyond two target modules to fit a model of width 16.
FIELDS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 100},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 4},
    "FOURIERFT": {"n_frequency": 20},
    "GRALORA": {"r": 4, "gralora_k": 2},
    "IA3": {"feedforward_modules": []},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4},
    "POLY": {"task_type": "CAUSAL_LM", "n_tasks": 2, "n_skills": 2},
    "PSOFT": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHADOW": {"target_modules": None},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [1, 2, 3]},
    "VBLORA": {"num_vectors": 8, "vector_length": 4, "topk": 2},
    "WAVEFT": {"n_frequency": 16},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True},
    "PiSSA": {"init_lora_weights": "pissa"},
    "OLoRA": {"init_lora_weights": "olora"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "random init": {"init_lora_weights": False},
    "lora_bias": {"lora_bias": True},
    "target_parameters": {"target_modules": [], "target_parameters": ["q_proj.weight", "v_proj.weight"]},
    "trainable tokens": {"trainable_token_indices": [1, 2, 3]},
}
BUILT_ON_OTHERS = {"XLORA"}  # mixes LoRA adapters that it loads from disk; its layers are LoRA layers


@dataclass(frozen=True)
class Tuner:
    """A tuner, or a variant of LoRA, and the fields of its config."""

    name: str
    type: str
    fields: dict[str, Any] = field(default_factory=dict)

    def model(self) -> Any:
        """A tiny Llama that carries it, in train mode."""
        torch.manual_seed(0)
        fields = {"target_modules": ["q_proj", "v_proj"], **self.fields}
        config = next(config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items() if kind.value == self.type)
        return get_peft_model(tiny_llama(), config(**{name: value for name, value in fields.items() if value is not None})).train()

    def batch(self) -> dict[str, torch.Tensor]:
        """Eight tokens, and the task where the tuner routes by it."""
        return {**text_batch(), "task_ids": torch.tensor([0])} if self.type == "POLY" else text_batch()


def _tuners() -> list[Tuner]:
    found = [kind.value for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items() if isinstance(tuner, type) and issubclass(tuner, BaseTuner)]
    plain = [Tuner(name, name, FIELDS.get(name, {})) for name in sorted({*found} - BUILT_ON_OTHERS)]
    return plain + [Tuner(name, "LORA", fields) for name, fields in VARIANTS.items()]


TUNERS = [pytest.param(tuner, id=tuner.name) for tuner in _tuners()]


def as_it_is(_: Any) -> None:
    """Nothing is wrong."""


def checkpointed(model: Any) -> None:
    """Activation checkpointing as it is meant to be."""
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})


def checkpointed_reentrantly(model: Any) -> None:
    """The reentrant kind, without input gradients."""
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": True})
    model.get_base_model().disable_input_require_grads()


def frozen(model: Any) -> None:
    """A freeze loop after the wrapping."""
    model.requires_grad_(requires_grad=False)


def disabled(model: Any) -> None:
    """Adapters switched off and never on again."""
    model.base_model.disable_adapter_layers()


def merged(model: Any) -> None:
    """Adapters merged and never unmerged."""
    model.merge_adapter()


def head_on(states: Callable[[Any, Any], torch.Tensor]) -> Loss:
    """A trainable head on what the model computes, so that a backward runs though the model is cut off."""
    head = torch.ones(16, requires_grad=True)
    return lambda model, batch: (states(model, batch) * head).sum()


def last_states(model: Any, batch: Any) -> torch.Tensor:
    """What goes into the output head, of shape [1, 8, 16]."""
    states: torch.Tensor = model(**batch, output_hidden_states=True).hidden_states[-1]
    return states


def under_no_grad(_: Any) -> Loss:
    """The backbone is a feature extractor."""
    return head_on(torch.no_grad()(last_states))


def detached(_: Any) -> Loss:
    """Features are detached before the head."""
    return head_on(lambda model, batch: last_states(model, batch).detach())


STATES = [
    (as_it_is, None),
    (checkpointed, None),
    (checkpointed_reentrantly, "PI304"),
    (frozen, "PI302"),
    (disabled, "PI205"),
    (merged, "PI206"),
    (under_no_grad, "PI303"),
    (detached, "PI305"),
]


def dead(model: Any, batch: Any) -> int:
    """How many trainable parameters a bare forward and backward leaves without a gradient."""
    loss = model(**batch).loss
    if loss.requires_grad:
        loss.backward()
    return sum(parameter.grad is None for parameter in model.parameters() if parameter.requires_grad)


def said(model: Any, batch: Any, loss: Loss | None) -> list[str]:
    """The codes of the findings; no rule may crash on a tuner that it does not know."""
    report = peft_inspect.check(model, batch, loss=loss, select=("PI2", "PI3"), verify=False)
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]
    return [found.code for found in report.findings]


@pytest.mark.parametrize(("state", "rule"), STATES)
@pytest.mark.parametrize("tuner", TUNERS)
def test_a_tuner_is_silent_when_sound_and_its_fault_is_named(tuner: Tuner, state: Callable[[Any], Loss | None], rule: str | None) -> None:
    try:
        model = tuner.model()
        loss = state(model)
        if state in (checkpointed, checkpointed_reentrantly) and not _loses_more_with(state, tuner):
            rule = None  # the tuner trains something before the blocks, so that their inputs require grad
    except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:
        pytest.skip(f"PEFT itself refuses: {error}")
    codes = said(model, tuner.batch(), loss)
    if tuner.type == "LN_TUNING" and state is merged:
        assert rule in codes  # merging swaps the trained norm with the frozen one, which other rules rightly see
    else:
        assert codes == ([rule] if rule else [])


def _loses_more_with(state: Callable[[Any], Loss | None], tuner: Tuner) -> bool:
    model = tuner.model()
    sound = dead(model, tuner.batch())
    model.zero_grad()
    state(model)
    return dead(model, tuner.batch()) > sound


def test_adapters_of_transformers_need_no_peft_model() -> None:
    model = tiny_llama()
    require_add_adapter()
    model.add_adapter(LoraConfig(target_modules=["q_proj", "v_proj"]))
    assert said(model, text_batch(), None) == []


def switched_off(model: Any) -> None:
    """As `disabled`, by the method that transformers has for it."""
    model.disable_adapters()


@pytest.mark.parametrize(("state", "rule"), [(switched_off, "PI205"), (frozen, "PI302"), (under_no_grad, "PI303"), (detached, "PI305")])
def test_faults_of_adapters_of_transformers_are_named(state: Callable[[Any], Loss | None], rule: str) -> None:
    model = tiny_llama()
    require_add_adapter()
    model.add_adapter(LoraConfig(target_modules=["q_proj", "v_proj"]))
    assert said(model, text_batch(), state(model)) == [rule]


@pytest.mark.parametrize("tuner", TUNERS)
def test_what_it_saves_fits_it(tuner: Tuner, tmp_path: Path) -> None:
    """A fresh adapter may be called untrained, and nothing else is said of its file."""
    try:
        model = tuner.model()
    except ImportError as error:
        pytest.skip(f"PEFT itself refuses: {error}")
    model.save_pretrained(str(tmp_path))
    report = peft_inspect.check(model, adapter=str(tmp_path), select=["PI4"])
    assert {found.code for found in report.findings} <= {"PI407"}
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]


def test_prompts_inside_attention_are_no_layers_that_were_asked_for() -> None:
    model = get_peft_model(tiny_llama(), AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_layers=1, adapter_len=4))
    assert not peft_inspect.check(model, text_batch()).findings
