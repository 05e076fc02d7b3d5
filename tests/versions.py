"""What a test needs of the libraries that are installed; a release that cannot give it skips the test with its own reason."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.version import Version


def require(library: str, lowest: str, what: str) -> None:
    """Skip the test unless this release of the library, or a later one, is installed."""
    if Version(version(library)) < Version(lowest):
        pytest.skip(f"{library} {version(library)} {what}")


def require_add_adapter() -> None:
    """Skip the test where transformers asks for a later PEFT before it adds an adapter by itself."""
    from transformers.integrations import peft as integration
    from transformers.utils import check_peft_version

    try:
        check_peft_version(min_version=integration.MIN_PEFT_VERSION)
    except (ImportError, ValueError) as error:
        pytest.skip(f"transformers {version('transformers')}, add_adapter: {error}")


FUSED = ("transformers", "5.0", "keeps experts as modules of their own: there are no fused parameters to adapt")
TIED_COPIES = ("peft", "0.19", "does not tie trained copies that are both named in modules_to_save")
EXAMPLES = {"PI105": FUSED, "PI106": FUSED, "PI111": TIED_COPIES}
"""What the example programs of rules need beyond the lowest versions."""

CASES = {
    "bypass/jamba_dt_proj": ("transformers", "5.15", "calls dt_proj where it runs without kernels: its adapter trains"),
    "bypass/mamba_dt_proj": ("transformers", "5.15", "calls dt_proj where it runs without kernels: its adapter trains"),
    "bypass/loaded_trainable_not_active": ("peft", "0.21", "has the active adapter train in place of the one that is loaded"),
    "bypass/shadow_adapters_disabled": ("peft", "0.21", "has no ShadowConfig"),
    "coverage/deepseek_shared_experts": FUSED,
    "coverage/gemma4_value_left_out": ("transformers", "5.5", "has no Gemma 4"),
    "coverage/granite_moe_all_linear": ("transformers", "5.13", "keeps the fused experts of GraniteMoe under other names"),
    "coverage/mixtral_llama_targets": FUSED,
    "coverage/nemotron_h_attention_list": ("transformers", "5.3", "has no NemotronH"),
    "coverage/qwen2_moe_router": FUSED,
    "coverage/tied_embedding_adapted_alone": ("peft", "0.20", "does not tie the adapters of tied weights"),
    "coverage/tied_head_saved_alone": TIED_COPIES,
    "files/adapter_name_inside_keys": ("peft", "0.21", "puts the adapter's name into keys that have it already"),
    "files/target_parameters_lost": FUSED,
    "healthy/fused_experts_target_parameters": FUSED,
}
"""What the programs of tests/cases need beyond them."""


def require_for_case(name: str) -> None:
    """Skip the test where what the case is about cannot be in this release of a library."""
    if name in CASES:
        require(*CASES[name])
