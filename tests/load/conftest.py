"""Tiny models and a loopback hub for the tests of loading."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from peft_inspect.load import load as load_request
from peft_inspect.records import Request

sys.path.insert(0, str(Path(__file__).parent))  # hub_server.py, which tests import

TINY_LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}


@pytest.fixture
def load():
    """`load(model, **fields of Request)`."""
    return lambda model=None, **fields: load_request(Request(model=model, **fields), lambda _: None)


@pytest.fixture
def tiny_llama(tmp_path):
    """A folder with the config of a tiny Llama and nothing else."""
    folder = tmp_path / "tiny-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY_LLAMA))
    return folder
