"""A model built on the meta device becomes one that runs, and stays the model it was."""

import time

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, CLIPConfig, DeepseekV3Config, GPT2Config, LlamaConfig, SwinConfig

from peft_inspect.run.weightless import is_weightless, materialise, running, storage_key


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.named = nn.ParameterDict({"a": nn.Parameter(torch.ones(3))})
        self.listed = nn.ParameterList([nn.Parameter(torch.ones(3))])
        self.plain = torch.ones(4)
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("position_ids", torch.arange(6)[None], persistent=False)
        self.register_buffer("mask", torch.ones(3, 3, dtype=torch.bool).tril())
        self.embedding.weight.note = "kept"

    def forward(self, ids):
        x = self.embedding(ids) * self.plain * self.scale
        return self.head(self.frozen(x)).sum() + self.named["a"].sum() + self.listed[0].sum()


pytestmark = [
    pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning"),  # PEFT, on experts without LoRA
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),  # transformers 5 names it anew
]


@pytest.fixture
def tied():
    with torch.device("meta"):
        model = Tied()
    materialise(model)
    return model


def test_every_float_becomes_weightless_and_nothing_stays_on_meta(tied):
    assert all(is_weightless(parameter) and isinstance(parameter, nn.Parameter) for parameter in tied.parameters())
    assert is_weightless(tied.scale)
    assert is_weightless(tied.plain)
    assert {tensor.device.type for tensor in (*tied.parameters(), *tied.buffers())} == {"cpu"}


def test_ties_and_what_was_set_on_a_parameter_stay(tied):
    assert tied.head.weight is tied.embedding.weight
    assert tied.embedding.weight.note == "kept"
    assert not tied.frozen.weight.requires_grad
    assert tied.head.weight.requires_grad


def test_integers_that_nobody_computes_get_plausible_values(tied):
    assert tied.position_ids.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert tied.mask.tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def test_every_trainable_parameter_gets_a_weightless_gradient(tied):
    with running():
        tied(torch.tensor([[1, 2]])).backward()
    assert all(is_weightless(parameter.grad) == parameter.requires_grad for parameter in tied.parameters())


TINY = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
WITH_INTEGERS = [GPT2Config(n_layer=1, n_embd=48), CLIPConfig(text_config=TINY, vision_config=TINY), SwinConfig(embed_dim=24)]


@pytest.mark.parametrize("config", WITH_INTEGERS, ids=lambda config: config.model_type)
def test_integer_buffers_hold_what_the_real_model_computes(config):
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    materialise(model)
    expected = {name: buffer for name, buffer in AutoModel.from_config(config).named_buffers() if not buffer.is_floating_point()}
    assert all(torch.equal(buffer, expected[name]) for name, buffer in model.named_buffers() if name in expected)


def test_materialising_twice_changes_nothing(tied):
    before = {name: storage_key(tensor) for name, tensor in tied.state_dict().items()}
    materialise(tied)
    assert {name: storage_key(tensor) for name, tensor in tied.state_dict().items()} == before


def test_casts_of_the_module_work(tied):
    tied.to(torch.bfloat16)
    assert {parameter.dtype for parameter in tied.parameters()} == {torch.bfloat16}
    assert all(isinstance(parameter, nn.Parameter) for parameter in tied.parameters())


def test_a_model_of_671_billion_parameters_is_materialised_at_once():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(DeepseekV3Config(), dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(target_modules="all-linear"), low_cpu_mem_usage=True)
    started = time.perf_counter()
    materialise(model)
    assert time.perf_counter() - started < 3  # 0.07 s on an idle machine
    assert model.get_base_model().num_parameters() > 600e9


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")  # that is the fault
def test_checkpointing_behaves_as_with_weights():
    """Reentrant checkpointing of blocks whose input needs no gradient loses theirs, the other kind does not."""
    for reentrant in (True, False):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(LlamaConfig(num_hidden_layers=2))
        model = get_peft_model(model, LoraConfig(), low_cpu_mem_usage=True).train()
        materialise(model)
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.get_base_model().get_input_embeddings()._forward_hooks.clear()  # those that would make the input need one
        ids = torch.arange(8)[None]
        with running():
            loss = model(input_ids=ids, labels=ids).loss
            assert loss.requires_grad is not reentrant
