"""An adapter that is loaded beside another is compared with the one that it was loaded as."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import peft_inspect
from peft_inspect.rules.examples import text_batch, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_second_adapter_that_is_loaded_and_used_is_no_fault(tmp_path: Path) -> None:
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(tiny_llama(), config).save_pretrained(tmp_path)
    with peft_inspect.watch(fail_on="never") as watching:
        model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
        model.load_adapter(str(tmp_path), "earlier", is_trainable=True)
        model.set_adapter("earlier")
        optimizer = torch.optim.AdamW((parameter for parameter in model.parameters() if parameter.requires_grad), lr=1e-2)
        for _ in range(2):
            model(**text_batch()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert watching.report is not None
    assert [finding.code for finding in watching.report.findings if finding.severity == "error"] == []
    (file,) = watching.report.adapter_files
    assert file.adapter == "earlier"
