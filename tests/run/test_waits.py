"""Reading a number from a tensor makes the host wait for a GPU: a watched step does so a fixed number of times, however large the model."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

import peft_inspect
from peft_inspect.structure.shards import numbers


class Reads(TorchDispatchMode):
    """Counts the values that are read one by one, once it is told that the program's own part is over."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def reads_of_a_watched_step(layers: int) -> int:
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2, num_key_value_heads=2
    )
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    ids = torch.arange(8)[None]
    with Reads() as reads, peft_inspect.watch(fail_on="never"):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return reads.count


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # in code of PEFT
def test_what_the_optimizer_did_is_read_at_once():
    # on a CPU the first value of each adapter weight is looked at, which costs nothing there: four weights a layer
    few, more = reads_of_a_watched_step(1), reads_of_a_watched_step(3)
    assert more - few <= 3 * 2 * 4


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_numbers_come_back_under_their_keys(dtype):
    scalars = {"one": torch.tensor(1, dtype=dtype), "none": torch.tensor(0, dtype=dtype), "other": torch.tensor(0.5)}
    assert numbers(scalars) == {"one": 1, "none": 0, "other": 0.5}


def test_no_tensors_are_no_numbers():
    assert numbers({}) == {}
