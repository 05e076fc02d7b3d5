"""What is read of a model without running it: modules, parameters, adapters and adapter layers, each fact once."""

import sys
from collections import Counter

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PrefixTuningConfig,
    VeraConfig,
    get_peft_model,
)
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from peft_inspect.records import Subject
from peft_inspect.rules.examples import tiny_classifier, tiny_llama
from peft_inspect.run.weightless import materialise
from peft_inspect.structure import read_structure
from tests.versions import FUSED, require, require_add_adapter

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT and transformers warn about much of what is built here


def read(model, **fields):
    return read_structure(Subject(model, "a test", **fields))


def lora(base=None, **fields):
    return get_peft_model(base or tiny_llama(), LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **fields}))


def tiny_mixtral():
    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    return MixtralForCausalLM(MixtralConfig(**shape, num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2))


def test_paths_and_totals_are_those_of_the_live_model():
    model = lora()
    structure = read(model)
    assert [module.path for module in structure.modules] == [path for path, _ in model.named_modules()]
    assert [parameter.path for parameter in structure.parameters] == [path for path, _ in model.named_parameters()]
    assert sum(parameter.numel for parameter in structure.parameters) == sum(parameter.numel() for parameter in model.parameters())
    assert structure.root_type == "PeftModel"
    assert structure.base_type == "LlamaForCausalLM"


def test_every_path_to_a_shared_module_and_a_tied_weight_is_known():
    """`named_modules()` hides the second path; `remove_duplicate=False` shows it."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = tiny_llama(tie_word_embeddings=True)
            self.second = self.first.model

    model = Twice()
    structure = read(model)
    assert structure.module["first.model"].aliases == ("second",)
    assert structure.module["first.model.norm"].aliases == ("second.norm",)
    tied = structure.parameter["first.model.embed_tokens.weight"]
    assert set(tied.aliases) == {"first.lm_head.weight", "second.embed_tokens.weight"}
    seen = {path for info in structure.modules for path in (info.path, *info.aliases)}
    assert seen == {path for path, _ in model.named_modules(remove_duplicate=False)}


def test_a_module_that_holds_its_parent_is_walked_once():
    model = nn.Sequential(nn.Linear(2, 2), nn.Module())
    model[1].parent = model
    assert [module.path for module in read(model).modules] == ["", "0", "1"]
    assert read(model).module[""].aliases == ("1.parent",)


def test_roles_tell_base_adapter_saved_original_and_other_weights_apart():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = lora(tiny_classifier(), modules_to_save=["score"])
            self.head = nn.Linear(2, 2)

    roles = {parameter.path: parameter.role for parameter in read(Wrapper()).parameters}
    base = "model.base_model.model"
    assert roles[f"{base}.model.layers.0.self_attn.q_proj.lora_A.default.weight"] == "adapter"
    assert roles[f"{base}.model.layers.0.self_attn.q_proj.base_layer.weight"] == "base"
    assert roles[f"{base}.score.modules_to_save.default.weight"] == "saved"
    assert roles[f"{base}.score.original_module.weight"] == "original"
    assert roles["head.weight"] == "other"


TUNERS = {
    "LORA": LoraConfig(r=4, target_modules=["q_proj"]),
    "ADALORA": AdaLoraConfig(init_r=4, target_r=2, total_step=10, tinit=1, tfinal=2, target_modules=["q_proj"]),
    "LOHA": LoHaConfig(r=4, target_modules=["q_proj"]),
    "LOKR": LoKrConfig(r=4, target_modules=["q_proj"]),
    "IA3": IA3Config(target_modules=["q_proj"], feedforward_modules=[]),
    "OFT": OFTConfig(oft_block_size=4, target_modules=["q_proj"]),
    "VERA": VeraConfig(r=4, target_modules=["q_proj"]),
}


@pytest.mark.parametrize("tuner", TUNERS)
def test_layers_of_every_tuner_are_found_with_their_weights(tuner):
    model = get_peft_model(tiny_llama(), TUNERS[tuner])
    structure = read(model)
    assert [layer.name for layer in structure.adapter_layers] == [f"model.layers.{index}.self_attn.q_proj" for index in range(2)]
    assert {layer.tuner for layer in structure.adapter_layers} == {tuner}
    trainable = {path for path, parameter in model.named_parameters() if parameter.requires_grad}
    assert {path for layer in structure.adapter_layers for path in layer.parameters} == trainable
    assert all(layer.asked and layer.active and layer.enabled and not layer.merged for layer in structure.adapter_layers)
    assert structure.adapters[0].type == tuner
    assert structure.adapters[0].trainable == sum(model.get_parameter(path).numel() for path in trainable)


def test_rank_scaling_and_state_of_each_adapter_are_its_own():
    model = lora(lora_alpha=8)
    model.add_adapter("wide", LoraConfig(r=16, lora_alpha=16, target_modules=["q_proj"], use_dora=True))
    structure = read(model)
    of_path = {(layer.path, layer.adapter): layer for layer in structure.adapter_layers}
    path = "base_model.model.model.layers.0.self_attn.q_proj"
    default, wide = of_path[path, "default"], of_path[path, "wide"]
    assert (default.r, default.lora_alpha, default.scaling, default.active) == (4, 8, 2.0, True)
    assert (wide.r, wide.lora_alpha, wide.scaling, wide.active) == (16, 16, 1.0, False)
    assert wide.details == {"use_dora": True}
    assert not structure.trainable(wide)
    assert [adapter.active for adapter in structure.adapters] == [True, False]
    model.merge_adapter()
    model.disable_adapter_layers()
    rows = read(model).adapter_layers
    assert all(row.merged is (row.adapter == "default") for row in rows)
    assert not any(row.enabled for row in rows)


def test_only_zero_weights_of_adapters_are_said_to_be_zero():
    zero = {parameter.path.split(".")[-3]: parameter.zero for parameter in read(lora()).parameters if parameter.role == "adapter"}
    assert zero == {"lora_A": False, "lora_B": True}
    assert {parameter.zero for parameter in read(lora()).parameters if parameter.role == "base"} == {None}


def test_an_adapter_with_the_values_of_another_is_a_copy_of_it():
    model = lora()
    model.add_adapter("copy", LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    assert {layer.copy_of for layer in read(model).adapter_layers} == {None}
    for module in model.modules():
        if hasattr(module, "lora_A"):
            module.lora_A["copy"].weight.data.copy_(module.lora_A["default"].weight)
    assert {layer.adapter: layer.copy_of for layer in read(model).adapter_layers} == {"default": None, "copy": "default"}


def test_fused_experts_have_a_row_per_parameter_with_the_rank_that_was_built():
    """PEFT doubles the rank of gate and up together, and nests one wrapper in the other."""
    require(*FUSED)
    structure = read(lora(tiny_mixtral(), target_modules=["q_proj", "w1", "w2", "w3"]))
    rows = {layer.parameter_name: layer for layer in structure.adapter_layers if ".layers.0.mlp" in layer.path}
    assert {name: row.r for name, row in rows.items()} == {"gate_up_proj": 8, "down_proj": 4}
    assert {row.base_type for row in rows.values()} == {"MixtralExperts"}
    assert {row.name for row in rows.values()} == {"model.layers.0.mlp.experts"}
    assert len({row.path for row in rows.values()}) == 2


def test_adapters_are_found_without_a_peft_model():
    """`model.add_adapter` of transformers leaves no wrapper, only configs and adapter layers."""
    require_add_adapter()
    model = tiny_llama()
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj"]))
    structure = read(model)
    assert [(adapter.name, adapter.owner, adapter.base, adapter.active) for adapter in structure.adapters] == [("default", "", "", True)]
    assert [target.entry for target in structure.adapters[0].targets] == ["q_proj"]
    assert len(structure.adapter_layers) == 2


def test_conv1d_embeddings_and_multihead_attention_carry_adapters():
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=16))
    rows = read(lora(gpt2, target_modules=["c_attn", "wte"])).adapter_layers
    assert {row.base_type for row in rows} == {"Conv1D", "Embedding"}
    assert all(len(row.parameters) == 2 for row in rows)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32), 1, enable_nested_tensor=False)
    rows = read(lora(encoder, target_modules=["self_attn"])).adapter_layers
    assert [(row.base_type, row.asked) for row in rows] == [("MultiheadAttention", True), ("NonDynamicallyQuantizableLinear", True)]


def test_prompt_learning_has_an_adapter_without_layers():
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    (adapter,) = read(get_peft_model(tiny_llama(), config)).adapters
    assert adapter.prompt_learning
    assert adapter.active


def test_the_optimizer_is_known_by_the_parameters_it_holds():
    model = lora()
    assert read(model).optimizer is None
    held = [parameter for path, parameter in model.named_parameters() if "lora_A" in path]
    optimizer = torch.optim.SGD(held, lr=0.1)
    assert read(model, optimizer=optimizer).optimizer == {path for path, _ in model.named_parameters() if "lora_A" in path}


def test_modes_that_differ_are_mixed():
    model = lora()
    assert read(model).mode == "train"
    model.base_model.model.model.layers[0].eval()
    assert read(model).mode == "mixed"


def test_configs_are_plain_values():
    config = read(lora(exclude_modules={"lm_head"})).adapters[0].config
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert config["peft_type"] == "LORA"
    assert config["exclude_modules"] == ["lm_head"]


def test_a_model_without_weights_reads_like_a_real_one():
    with torch.device("meta"):
        model = lora()
    materialise(model)
    structure, real = read(model, weights="none"), read(lora())
    assert [(p.path, p.shape, p.role, p.requires_grad) for p in structure.parameters] == [
        (p.path, p.shape, p.role, p.requires_grad) for p in real.parameters
    ]
    assert {parameter.device for parameter in structure.parameters} == {"cpu"}
    assert structure.coverage == real.coverage


def test_reading_grows_no_faster_than_the_model():
    """A mixture with one linear layer per expert has thousands of modules."""

    class Expert(nn.Module):
        def __init__(self):
            super().__init__()
            self.up_proj, self.down_proj = nn.Linear(2, 2), nn.Linear(2, 2)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(2, 2)
            self.experts = nn.ModuleList(Expert() for _ in range(64))

    def calls(blocks):
        with torch.device("meta"):
            model = nn.ModuleDict({"blocks": nn.ModuleList(Block() for _ in range(blocks))})
        counted = Counter()
        sys.setprofile(lambda frame, event, argument: counted.update([event]))
        try:
            structure = read(model, weights="none")
        finally:
            sys.setprofile(None)
        assert len(structure.modules) == 2 + blocks * (3 + 64 * 3)
        return counted["call"] + counted["c_call"]

    assert calls(16) < 5 * calls(4)
