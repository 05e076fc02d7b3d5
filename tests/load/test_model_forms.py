"""Every form of MODEL that needs no code of the user and no network."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from transformers import dynamic_module_utils

from peft_inspect.records import InspectionError


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("llama", "LlamaForCausalLM"),
        ("bert", "BertForMaskedLM"),
        ("t5", "T5ForConditionalGeneration"),
        ("bart", "BartForConditionalGeneration"),
        ("whisper", "WhisperForConditionalGeneration"),
        ("wav2vec2", "Wav2Vec2ForCTC"),
        ("vit", "ViTForImageClassification"),
        ("detr", "DetrForObjectDetection"),
        ("clip", "CLIPModel"),
        ("siglip", "SiglipModel"),
        ("llava", "LlavaForConditionalGeneration"),
        ("qwen2_audio", "Qwen2AudioForConditionalGeneration"),
        ("llama4", "Llama4ForConditionalGeneration"),
        ("gemma4", "Gemma4ForConditionalGeneration"),
        ("gemma4_text", "Gemma4ForCausalLM"),
        ("musicgen", "MusicgenForConditionalGeneration"),
        ("jamba", "JambaForCausalLM"),
    ],
)
def test_a_model_type_is_built_whole_and_for_its_purpose(load, model_type, expected):
    """Not every architecture is a causal LM, and a composite one is more than its text part."""
    try:
        subject = load(f"arch:{model_type}")
    except InspectionError as error:
        if "is not installed" not in str(error):
            raise
        pytest.skip(str(error))
    assert type(subject.model).__name__ == expected
    assert (subject.weights, subject.model.training) == ("none", True)
    assert sum(parameter.numel() for parameter in subject.model.parameters() if not parameter.is_meta) < 10_000


@pytest.mark.parametrize(
    ("model_type", "task", "expected"),
    [
        ("llama", "SEQ_CLS", "LlamaForSequenceClassification"),
        ("llama", "seq_cls", "LlamaForSequenceClassification"),
        ("bert", "TOKEN_CLS", "BertForTokenClassification"),
        ("bert", "QUESTION_ANS", "BertForQuestionAnswering"),
        ("bert", "FEATURE_EXTRACTION", "BertModel"),
        ("vit", "SEQ_CLS", "ViTForImageClassification"),
        ("wav2vec2", "SEQ_CLS", "Wav2Vec2ForSequenceClassification"),
        ("llava", "CAUSAL_LM", "LlavaForConditionalGeneration"),
        ("t5", "SEQ_2_SEQ_LM", "T5ForConditionalGeneration"),
    ],
)
def test_the_task_type_chooses_the_class(load, model_type, task, expected):
    subject = load(f"arch:{model_type}", lora_fields={"task_type": task, "target_modules": r".*\.(q|q_proj|query)"})
    assert type(subject.model.get_base_model()).__name__ == expected


def test_the_architectures_of_a_config_decide_unless_the_task_is_another(load, tiny_llama):
    file = tiny_llama / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "architectures": ["LlamaForTokenClassification"]}))
    assert type(load(str(tiny_llama)).model).__name__ == "LlamaForTokenClassification"
    subject = load(str(file), lora_fields={"task_type": "CAUSAL_LM", "target_modules": "q_proj"})
    assert type(subject.model.get_base_model()).__name__ == "LlamaForCausalLM"


def test_base_class_wins_over_everything(load, tiny_llama):
    assert type(load(str(tiny_llama), base_class="LlamaModel").model).__name__ == "LlamaModel"
    with pytest.raises(InspectionError, match=r"has no model class 'LlamaForCausalML'; the closest are 'LlamaForCausalLM'"):
        load(str(tiny_llama), base_class="LlamaForCausalML")


def test_a_folder_and_its_config_file_are_the_same_model(load, tiny_llama):
    folder, file = load(str(tiny_llama)), load(str(tiny_llama / "config.json"))
    assert [*folder.model.state_dict()] == [*file.model.state_dict()]
    assert folder.source_file == file.source_file == str(tiny_llama / "config.json")
    assert folder.folder == file.folder == str(tiny_llama)


def test_a_config_without_model_type_is_told_by_its_architectures(load, tiny_llama):
    file = tiny_llama / "config.json"
    config = {key: value for key, value in json.loads(file.read_text()).items() if key != "model_type"}
    file.write_text(json.dumps(config))
    assert type(load(str(file)).model).__name__ == "LlamaForCausalLM"
    file.write_text(json.dumps({"hidden_size": 4}))
    with pytest.raises(InspectionError, match=r"has no model_type"):
        load(str(file))


def test_weightless_models_take_the_dtype_of_the_config(load, tiny_llama):
    file = tiny_llama / "config.json"
    assert next(load(str(file)).model.parameters()).dtype == torch.float32
    file.write_text(json.dumps({**json.loads(file.read_text()), "torch_dtype": "float16"}))
    assert next(load(str(file)).model.parameters()).dtype == torch.float16


def test_weightless_experts_are_bfloat16_because_grouped_products_refuse_float32(load):
    assert next(load("arch:mixtral").model.parameters()).dtype == torch.bfloat16


def test_wrapping_a_weightless_model_allocates_nothing(load):
    subject = load("arch:deepseek_v3", lora_fields={"target_modules": "all-linear"})
    assert all(parameter.is_meta for parameter in subject.model.parameters())


def test_random_weights_are_real_and_trainable_parts_are_the_adapter(load, tiny_llama):
    subject = load(str(tiny_llama), weights="random", lora_fields={"target_modules": "q_proj,v_proj", "r": 2})
    assert not any(parameter.is_meta for parameter in subject.model.parameters())
    assert all("lora_" in name for name, parameter in subject.model.named_parameters() if parameter.requires_grad)
    assert subject.model.training


def test_random_weights_are_the_same_each_time_and_whoever_draws_besides_is_left_alone(load, tiny_llama):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = (load(str(tiny_llama), weights="random", lora_fields={"target_modules": ["q_proj"]}).model for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))


def test_random_weights_leave_no_gate_shut_that_a_checkpoint_opens(load):
    """Evolla multiplies what its protein encoder says by gates that start at zero."""
    model = load("arch:EvollaModel", weights="random", reduce=True).model
    assert all(parameter.any() for parameter in model.parameters())


def test_weights_that_do_not_fit_are_refused_before_they_are_allocated(load):
    with pytest.raises(
        InspectionError, match=r"the weights of arch:deepseek_v3 take [\d,.]+ GB and [\d,.]+ GB of memory are free: use --weights none"
    ):
        load("arch:deepseek_v3", weights="random")


def test_pretrained_weights_are_loaded_from_safetensors(load, tiny_llama):
    model = load(str(tiny_llama), weights="random").model
    model.save_pretrained(tiny_llama)
    loaded = load(str(tiny_llama), weights="pretrained")
    assert loaded.weights == "pretrained"
    assert loaded.model.training
    assert all(torch.equal(loaded.model.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_loading_says_nothing_by_itself(load, tiny_llama, capfd):
    """No progress bars, log lines or warnings of the libraries; what fails is raised."""
    model = load(str(tiny_llama), weights="random").model
    model.save_pretrained(tiny_llama)
    capfd.readouterr()
    load(str(tiny_llama), weights="pretrained", lora_fields={"target_modules": "q_proj", "exclude_modules": "nothing"})
    assert capfd.readouterr() == ("", "")


def test_pickle_checkpoints_are_never_read(load, tiny_llama):
    (tiny_llama / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(
        InspectionError, match=r"only in pickle files \(pytorch_model.bin\), which can run any code .* train.py:build_model"
    ):
        load(str(tiny_llama), weights="pretrained")


def test_without_a_checkpoint_pretrained_says_what_else_there_is(load, tiny_llama):
    with pytest.raises(InspectionError, match=r"has no weights in safetensors files"):
        load(str(tiny_llama), weights="pretrained")
    with pytest.raises(InspectionError, match=r"arch:llama has no checkpoint to load: use --weights none"):
        load("arch:llama", weights="pretrained")


def test_a_truncated_checkpoint_is_an_error_of_the_file(load, tiny_llama):
    (tiny_llama / "model.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(InspectionError, match=r"the checkpoint of .*tiny-llama does not load"):
        load(str(tiny_llama), weights="pretrained")


def test_a_quantised_checkpoint_is_built_with_plain_layers_and_says_so(load, tiny_llama):
    file = tiny_llama / "config.json"
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": quantization}))
    subject = load(str(file), lora_fields={"target_modules": "q_proj"})
    assert any("quantised (bitsandbytes)" in note for note in subject.notes)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("arch:lama", r"knows no model type 'lama'; the closest are 'llama'"),
        ("./nowhere", r"there is no file or folder ./nowhere"),
        ("nowhere/config.json", r"there is no file or folder nowhere/config.json"),
        ("a b c", r"'a b c' is no model: give a hub id, a folder, a config.json, arch:TYPE"),
        (None, r"no MODEL: name one"),
    ],
)
def test_what_names_no_model_says_what_would(load, model, message):
    with pytest.raises(InspectionError, match=message):
        load(model)


def test_damaged_configs_say_where(load, tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"model_type": "llama",\n  "hidden_size": }')
    with pytest.raises(InspectionError, match=r"config.json is not valid JSON: .* in line 2, column 18"):
        load(str(file))
    file.write_text("[1, 2]")
    with pytest.raises(InspectionError, match=r"config.json holds a list where a mapping of fields is needed"):
        load(str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InspectionError, match=r"config.json is not a text file"):
        load(str(file))


def test_an_empty_folder_says_what_is_missing(load, tmp_path):
    with pytest.raises(InspectionError, match=r"has no config.json; it is empty"):
        load(str(tmp_path))


def test_values_that_the_architecture_refuses_are_its_words(load):
    with pytest.raises(InspectionError, match=r"arch:llama.*|refuses"):
        load("arch:llama", config_fields={"hidden_size": 100, "num_attention_heads": 7})


def test_a_repositorys_code_runs_only_when_trusted(load, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "homegrown"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "homegrown", "width": 3, "auto_map": {"AutoConfig": "net.HomeConfig", "AutoModel": "net.HomeModel"}})
    )
    (folder / "net.py").write_text(
        "import pathlib, torch\nfrom transformers import PretrainedConfig, PreTrainedModel\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class HomeConfig(PretrainedConfig):\n    model_type = 'homegrown'\n    width: int = 1\n"
        "class HomeModel(PreTrainedModel):\n    config_class = HomeConfig\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config); self.line = torch.nn.Linear(config.width, 1); self.post_init()\n"
    )
    with pytest.raises(InspectionError, match=r"read that code, then pass --trust-remote-code"):
        load(str(folder))
    assert not (tmp_path / "ran").exists()
    assert load(str(folder), trust_remote_code=True).model.line.in_features == 3


def test_layers_are_not_dropped_at_random_unless_asked_for(load):
    """A layer that LayerDrop skips would look as if it never ran."""
    assert load("arch:wav2vec2").model.config.layerdrop == 0
    assert any("layerdrop 0.1 → 0" in note for note in load("arch:wav2vec2").notes)
    assert load("arch:wav2vec2", config_fields={"layerdrop": 0.2}).model.config.layerdrop == 0.2
