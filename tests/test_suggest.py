"""`check --suggest` writes a LoRA config on which the finding is gone."""

import json

from typer.testing import CliRunner

from peft_inspect.cli import app

TINY = [f"--config-set={field}" for field in ("num_hidden_layers=2", "hidden_size=32", "intermediate_size=64", "vocab_size=64")]
PHI3 = [
    "check",
    "arch:phi3",
    *TINY,
    "--config-set=num_attention_heads=2",
    "--config-set=num_key_value_heads=2",
    "--config-set=pad_token_id=0",
]


def codes(*arguments):
    ran = CliRunner().invoke(app, [*PHI3, "--select", "PI1", "--format", "json", *arguments])
    assert ran.exit_code in (0, 1), ran.stderr
    return [finding["code"] for finding in json.loads(ran.stdout)["findings"]]


def test_the_suggested_config_mends_what_was_found(tmp_path):
    suggested = tmp_path / "lora.json"
    assert "PI101" in codes("--target-modules", "q_proj,k_proj,v_proj,o_proj", "--suggest", str(suggested))
    assert "qkv_proj" in json.loads(suggested.read_text())["target_modules"]
    assert "PI101" not in codes("--lora", str(suggested))
