"""Adapters as MODEL and with --adapter: their base, and what is loaded onto it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from peft_inspect.api import inspect
from peft_inspect.load import live
from peft_inspect.records import InspectionError, Request


@pytest.fixture
def adapter(load, tiny_llama, tmp_path):
    """A trained adapter of the tiny Llama, its base named in its config."""
    model = load(str(tiny_llama), weights="random", lora_fields={"r": 2, "target_modules": "q_proj,v_proj"}).model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    folder = tmp_path / "adapter"
    model.save_pretrained(folder)
    edit(folder, base_model_name_or_path=str(tiny_llama))
    return folder


def edit(folder, **fields):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_an_adapter_is_built_on_the_base_that_it_names(load, adapter, tiny_llama):
    subject = load(str(adapter))
    assert isinstance(subject.model, PeftModel)
    assert all(parameter.is_meta for parameter in subject.model.parameters())
    assert (subject.weights, subject.source, subject.source_file) == ("none", str(adapter), str(adapter / "adapter_config.json"))
    assert [file.adapter for file in subject.adapter_files] == ["default"]
    assert f"base model: {tiny_llama}" in subject.notes
    assert subject.requested["target_modules"] is not None


def test_an_adapter_is_handed_over_as_a_resumed_training_would_have_it(load, adapter):
    """A saved config says inference_mode; the question is whether it trains, so it is loaded trainable and active."""
    model = load(str(adapter)).model
    assert all(parameter.requires_grad == ("lora_" in name) for name, parameter in model.named_parameters())
    assert (model.active_adapters, model.training, model.peft_config["default"].inference_mode) == (["default"], True, False)


def test_with_weights_the_tensors_of_the_file_are_loaded(load, adapter):
    subject = load(str(adapter), weights="random")
    loaded = [parameter for name, parameter in subject.model.named_parameters() if "lora_B" in name]
    assert loaded
    assert all((parameter == 0.5).all() for parameter in loaded)
    assert len(load_file(adapter / "adapter_model.safetensors")) == 2 * len(loaded)


def test_base_overrides_what_the_adapter_names(load, adapter):
    edit(adapter, base_model_name_or_path="/somewhere/else")
    with pytest.raises(
        InspectionError, match=r"names the base model '/somewhere/else', which is not on this machine: say where it is with --base"
    ):
        load(str(adapter))
    subject = load(str(adapter), base="arch:llama", config_fields={"num_hidden_layers": 1})
    assert type(subject.model.get_base_model()).__name__ == "LlamaForCausalLM"


def test_an_adapter_that_names_no_base_asks_for_one(load, adapter):
    edit(adapter, base_model_name_or_path=None)
    with pytest.raises(InspectionError, match=r"does not name its base model: say which it is with --base MODEL"):
        load(str(adapter))


def test_an_adapter_whose_base_is_an_adapter_asks_for_the_model_below(load, adapter, tmp_path):
    second = tmp_path / "second"
    shutil.copytree(adapter, second)
    edit(second, base_model_name_or_path=str(adapter))
    with pytest.raises(InspectionError, match=r"an adapter itself: name the model below it with --base"):
        load(str(second))


def test_the_task_of_the_adapter_chooses_the_class_of_its_base(load, adapter):
    edit(adapter, task_type="SEQ_CLS")
    assert type(load(str(adapter)).model.get_base_model()).__name__ == "LlamaForSequenceClassification"


def test_an_adapter_without_a_task_is_built_on_the_class_it_was_trained_on(load, adapter):
    """Its keys are paths in that class: in another one they would find no place."""
    edit(adapter, auto_mapping={"base_model_class": "LlamaModel", "parent_library": "transformers.models.llama.modeling_llama"})
    assert type(load(str(adapter)).model.get_base_model()).__name__ == "LlamaModel"
    assert type(load(str(adapter), base_class="LlamaForCausalLM").model.get_base_model()).__name__ == "LlamaForCausalLM"
    edit(adapter, auto_mapping={"base_model_class": "MyOwnNet", "parent_library": "my.nets"})
    assert type(load(str(adapter)).model.get_base_model()).__name__ == "LlamaForCausalLM"


def test_a_classifiers_adapter_counts_the_labels(load, tiny_llama, tmp_path):
    """Its base's config knows the default of two."""
    fields = {"target_modules": "q_proj", "task_type": "SEQ_CLS"}
    trained = load(str(tiny_llama), weights="random", lora_fields=fields, config_fields={"num_labels": 5}).model
    folder = tmp_path / "classifier"
    trained.save_pretrained(folder)
    edit(folder, base_model_name_or_path=str(tiny_llama))
    for weights in ("none", "random"):
        assert load(str(folder), weights=weights).model.get_base_model().score.modules_to_save["default"].out_features == 5
    assert load(str(tiny_llama), adapter=str(folder)).model.get_base_model().num_labels == 5


def test_the_base_can_be_built_as_another_class(load, adapter):
    assert type(load(str(adapter), base_class="LlamaModel").model.get_base_model()).__name__ == "LlamaModel"
    for name in ("AutoModel", "LlamaConfig", "LlamaMdel"):
        with pytest.raises(InspectionError, match=rf"has no model class '{name}'; the closest are '(?!{name}')\w+") as raised:
            load(str(adapter), base_class=name)
        assert "names another" not in str(raised.value)


def test_several_adapters_in_one_folder_are_loaded_side_by_side(load, adapter, tmp_path):
    """The first trains, the others are as PEFT loads a second adapter: frozen and inactive."""
    shutil.copytree(adapter, adapter / "reference")
    for weights in ("none", "random"):
        model = load(str(adapter), weights=weights).model
        assert sorted(model.peft_config) == ["default", "reference"]
        assert model.active_adapters == ["default"]
        assert all(not parameter.requires_grad for name, parameter in model.named_parameters() if ".reference." in name)
        assert all(parameter.requires_grad for name, parameter in model.named_parameters() if ".default." in name)


@pytest.mark.parametrize("name", ["1", "v1.5", "weight", "training", "keys", "lora_A", "layers", "policy"])
@pytest.mark.parametrize("weights", ["none", "random"])
def test_a_folder_may_be_called_as_no_adapter_can(load, adapter, name, weights):
    """PEFT finds the tensors of an adapter by its name between dots, and holds its modules as attributes."""
    shutil.copytree(adapter, adapter / name)
    report = inspect(Request(model=str(adapter), weights=weights))
    assert not report.findings
    assert len(report.structure.adapters) == 2
    assert name != "policy" or {info.name for info in report.structure.adapters} == {"default", "policy"}


def test_a_smaller_model_fits_no_adapter(load, adapter, tiny_llama):
    for request in ({"model": str(adapter)}, {"model": str(tiny_llama), "adapter": str(adapter)}):
        with pytest.raises(
            InspectionError, match=r"--reduce makes a smaller model, .* as MODEL --lora .*adapter --set inference_mode=false"
        ):
            load(**request, reduce=True)
    assert load(str(tiny_llama), lora=str(adapter), reduce=True).model.peft_config["default"].r == 2


def test_adapter_is_loaded_onto_an_unwrapped_model(load, adapter, tiny_llama):
    subject = load(str(tiny_llama), adapter=str(adapter), weights="random")
    assert isinstance(subject.model, PeftModel)
    assert subject.source == str(tiny_llama)


def test_adapter_is_only_read_where_the_model_is_wrapped(load, adapter, tiny_llama):
    subject = load(str(tiny_llama), adapter=str(adapter), lora_fields={"target_modules": "q_proj", "r": 7})
    assert subject.model.peft_config["default"].r == 7
    assert len(subject.adapter_files) == 1
    assert subject.requested["r"] == 7


def test_a_live_model_gets_nothing_loaded(load, adapter, tiny_llama):
    model = load(str(tiny_llama), weights="random").model
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    subject = live(model, batch=None, loss=None, optimizer=None, adapter=str(adapter))
    assert subject.model is model
    assert len(subject.adapter_files) == 1
    assert (subject.weights, subject.source) == ("user", "LlamaForCausalLM")
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_tensors_of_another_shape_are_left_to_the_rules(load, adapter):
    edit(adapter, r=4)
    for weights in ("none", "random"):
        assert load(str(adapter), weights=weights).model.peft_config["default"].r == 4


def without(folder, part):
    """Take the tensors with this part in their keys out of the adapter's file."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({key: tensors[key] for key in tensors if part not in key}, file)


@pytest.mark.parametrize("weights", ["none", "random", "pretrained"])
def test_a_head_that_the_file_lacks_is_left_to_the_rules(load, tiny_llama, tmp_path, weights):
    """PEFT itself ends with a KeyError."""
    fields = {"target_modules": "q_proj", "task_type": "SEQ_CLS"}
    trained = load(str(tiny_llama), weights="random", lora_fields=fields, config_fields={"pad_token_id": 0}).model
    folder, base = tmp_path / "classifier", tmp_path / "base"
    trained.save_pretrained(folder)
    trained.unload().save_pretrained(base)
    edit(folder, base_model_name_or_path=str(base))
    without(folder, "score")
    for request in (Request(model=str(folder), weights=weights), Request(model=str(base), adapter=str(folder), weights=weights)):
        report = inspect(request, select=["PI401", "PI402", "PI406"])
        assert [(found.code, found.modules) for found in report.findings] == [("PI406", ("base_model.model.score",))]


@pytest.mark.parametrize("weights", ["none", "random"])
def test_values_of_the_file_that_are_not_finite_are_found(adapter, weights):
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"][0, 3] = float("inf")
    save_file(tensors, file)
    report = inspect(Request(model=str(adapter), weights=weights))
    (found,) = report.findings
    assert (found.code, found.severity.value) == ("PI315", "error")
    assert "base_model.model.model.layers.1.self_attn.v_proj" in found.modules
    if weights == "none":
        assert found.modules == ("base_model.model.model.layers.1.self_attn.v_proj",)
        assert "1 of 8 tensors in" in found.message


def test_without_values_anywhere_nothing_is_said_of_them(adapter):
    report = inspect(Request(model=str(adapter)))
    assert not report.findings
    assert "PI315" in {outcome.code for outcome in report.outcomes if outcome.status == "skipped"}


@pytest.mark.parametrize("weights", ["none", "random"])
def test_trained_tokens_that_the_file_lacks_are_left_to_the_rules(load, tiny_llama, tmp_path, weights):
    fields = {"target_modules": "q_proj", "trainable_token_indices": [1, 2]}
    folder = tmp_path / "tokens"
    load(str(tiny_llama), weights="random", lora_fields=fields).model.save_pretrained(folder)
    edit(folder, base_model_name_or_path=str(tiny_llama))
    without(folder, "embed_tokens")
    report = inspect(Request(model=str(folder), weights=weights), select=["PI401", "PI402", "PI406"])
    assert [module for found in report.findings for module in found.modules] == ["base_model.model.model.embed_tokens.token_adapter"]


def test_what_is_no_adapter_is_said(load, tiny_llama, tmp_path):
    with pytest.raises(InspectionError, match=r"tiny-llama has no adapter_config.json"):
        load(str(tiny_llama), adapter=str(tiny_llama))
    with pytest.raises(InspectionError, match=r"--base goes with an adapter, and .*tiny-llama is none"):
        load(str(tiny_llama), base="arch:llama")


def test_lora_flags_do_not_go_with_an_adapter(load, adapter):
    with pytest.raises(InspectionError, match=r"carries an adapter already: leave out --lora"):
        load(str(adapter), lora_fields={"target_modules": "q_proj"})


def test_a_base_that_lacks_the_targets_of_the_adapter(load, adapter):
    for weights in ("none", "random"):
        with pytest.raises(InspectionError, match=r"no module of GPT2LMHeadModel is called 'q_proj' or 'v_proj'"):
            load(str(adapter), base="arch:gpt2", config_fields={"n_layer": 1}, weights=weights)


def test_a_file_that_peft_cannot_load_is_named(load, adapter):
    shutil.copytree(adapter, adapter / "second")
    edit(adapter / "second", target_modules=["c_attn"])
    for weights in ("none", "random"):
        with pytest.raises(InspectionError, match=r"the adapter .*second does not load onto its base model"):
            load(str(adapter), weights=weights)


@pytest.mark.parametrize("value", [3, [1], "model"])
def test_live_refuses_what_is_no_model(value):
    with pytest.raises(InspectionError, match=r"cannot be inspected: pass the torch.nn.Module that is trained"):
        live(value, batch=None, loss=None, optimizer=None, adapter=None)


def test_live_refuses_what_is_no_batch():
    with pytest.raises(InspectionError, match=r"a batch is a dict of keyword inputs, such as input_ids and labels, and not a list"):
        live(torch.nn.Linear(1, 1), batch=[torch.ones(1)], loss=None, optimizer=None, adapter=None)


def test_a_generating_adapter_is_held_against_the_backbone_alone(adapter):
    """As a server runs it; PEFT's class for the task asks for what only a generating model has."""
    edit(adapter, task_type="CAUSAL_LM")
    report = inspect(Request(model=str(adapter), base_class="LlamaModel"), select=["PI4"])
    assert [found.code for found in report.findings] == ["PI401"]
    assert report.findings[0].facts["mapping"] == {"base_model.model.model.": "base_model.model."}
