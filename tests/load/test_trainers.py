"""Config files of trainers: recognised by their fields, and their settings applied."""

from __future__ import annotations

import re

import pytest
from peft.tuners.lora import LoraLayer

from peft_inspect.records import InspectionError

AXOLOTL = """
base_model: {model}
adapter: qlora
load_in_4bit: true
lora_r: 4
lora_alpha: 8
lora_target_linear: true
lora_modules_to_save: [embed_tokens]
gradient_checkpointing: true
gradient_checkpointing_kwargs: {{use_reentrant: true}}
sequence_len: 2048
datasets: [{{path: tatsu-lab/alpaca}}]
"""
LLAMA_FACTORY = """
model_name_or_path: {model}
stage: sft
finetuning_type: lora
lora_rank: 4
lora_target: q_proj, v_proj
additional_target: embed_tokens
dataset: identity
"""
TRL = """
model_name_or_path: {model}
use_peft: true
lora_r: 4
lora_alpha: 8
lora_target_modules: [q_proj, v_proj]
dataset_name: trl-lib/Capybara
"""
TORCHTUNE = """
model:
  _component_: torchtune.models.llama3.lora_llama3_8b
  lora_attn_modules: [q_proj, v_proj, output_proj]
  apply_lora_to_mlp: true
  lora_rank: 4
  lora_alpha: 8
checkpointer:
  checkpoint_dir: {model}
enable_activation_checkpointing: true
"""
HUGGING_FACE = """
model_name_or_path: {model}
peft_config:
  r: 4
  lora_alpha: 8
  target_modules: [q_proj, v_proj]
training_arguments:
  gradient_checkpointing: true
  gradient_checkpointing_kwargs: {{use_reentrant: true}}
"""
SECTIONS = """
model:
  name_or_path: {model}
  torch_dtype: bfloat16
lora:
  _target_: peft.LoraConfig
  r: 4
  lora_alpha: 8
  target_modules: [q_proj, v_proj]
trainer:
  gradient_checkpointing: true
  gradient_checkpointing_kwargs: {{use_reentrant: true}}
  max_steps: 5
"""
FLAT = """
model_id: {model}
r: 4
lora_alpha: 8
target_modules: [q_proj, v_proj]
"""


DEEP = """
experiment: {{seed: 1}}
model:
  name: {model}
  adapter:
    _target_: peft.LoraConfig
    r: 4
    lora_alpha: 8
    target_modules: [q_proj, v_proj]
"""
ARGUMENTS = """
model_arguments:
  model_name_or_path: {model}
lora_arguments:
  r: 4
  lora_alpha: 8
  target_modules: [q_proj, v_proj]
"""


@pytest.fixture
def inspect(load, tiny_llama, tmp_path):
    """`inspect(text)` loads what a trainer's file names, without naming a MODEL."""

    def run(text, **request):
        file = tmp_path / "train.yaml"
        file.write_text(text.format(model=tiny_llama))
        return load(lora=str(file), **request)

    return run


def adapted(subject):
    return sorted({path.rpartition(".")[2] for path, module in subject.model.named_modules() if isinstance(module, LoraLayer)})


@pytest.mark.parametrize(
    ("text", "trainer", "modules"),
    [
        (AXOLOTL, "axolotl", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
        (LLAMA_FACTORY, "LLaMA-Factory", ["q_proj", "v_proj"]),
        (TRL, "TRL", ["q_proj", "v_proj"]),
        (TORCHTUNE, "torchtune", ["down_proj", "gate_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
        (HUGGING_FACE, "a Trainer, with its LoraConfig under 'peft_config'", ["q_proj", "v_proj"]),
        (SECTIONS, "a Trainer, with its LoraConfig under 'lora'", ["q_proj", "v_proj"]),
        (DEEP, "a Trainer, with its LoraConfig under 'model.adapter'", ["q_proj", "v_proj"]),
        (ARGUMENTS, "a Trainer, with its LoraConfig under 'lora_arguments'", ["q_proj", "v_proj"]),
    ],
)
def test_each_is_recognised_and_wraps_the_model_it_names(inspect, tiny_llama, text, trainer, modules):
    subject = inspect(text)
    assert subject.source == str(tiny_llama)
    assert adapted(subject) == modules
    assert (subject.requested["r"], subject.requested["lora_alpha"]) == (4, 8)
    assert any(f"is a config of {trainer}" in note for note in subject.notes)


@pytest.mark.parametrize("text", [TRL + "model_revision: main\n", AXOLOTL + "revision_of_model: main\n"])
def test_a_revision_beside_a_folder_says_nothing(inspect, tiny_llama, text):
    assert inspect(text).source == str(tiny_llama)


def test_axolotl_is_known_by_its_adapter_and_base_model_alone(inspect):
    text = "base_model: {model}\nmodel_type: LlamaForCausalLM\nadapter: lora\nlora_r: 4\nlora_target_modules: [q_proj]\n"
    assert adapted(inspect(text)) == ["q_proj"]


def test_a_file_that_is_mostly_foreign_is_taken_for_no_lora_config(inspect):
    with pytest.raises(InspectionError, match="has no field 'depth' nor most others of this file, which is of no trainer"):
        inspect("net: {model}\nwidth: 3\ndepth: 4\ntarget_modules: [q_proj]\n")


def test_a_lora_config_beside_a_model_id_is_read_too(inspect):
    assert adapted(inspect(FLAT)) == ["q_proj", "v_proj"]


def test_fields_that_do_not_matter_are_named(inspect):
    notes = inspect(AXOLOTL).notes
    assert any("these fields do not matter here: datasets, sequence_len" in note for note in notes)
    assert any("load_in_4bit: the base is inspected with plain linear layers" in note for note in notes)


def test_modules_to_save_are_trained(inspect):
    for text in (AXOLOTL, LLAMA_FACTORY):
        trainable = [name for name, parameter in inspect(text).model.named_parameters() if parameter.requires_grad and "lora_" not in name]
        assert len(trainable) == 1
        assert "embed_tokens.modules_to_save" in trainable[0]


@pytest.mark.parametrize(
    ("text", "reentrant"),
    [(AXOLOTL, True), (LLAMA_FACTORY, False), (TRL, False), (TORCHTUNE, False), (HUGGING_FACE, True), (SECTIONS, True), (FLAT, None)],
)
def test_gradient_checkpointing_is_what_the_trainer_makes_of_it(inspect, text, reentrant):
    block = inspect(text).model.get_base_model().model.layers[0]
    assert block.gradient_checkpointing == (reentrant is not None)
    if reentrant is not None:
        assert block._gradient_checkpointing_func.keywords["use_reentrant"] == reentrant


def test_inputs_require_gradients_where_the_trainer_sees_to_it(inspect):
    """With reentrant checkpointing it is what keeps the adapters alive."""
    assert inspect(AXOLOTL).model.get_base_model().get_input_embeddings()._forward_hooks


def test_llama_factory_leaves_frozen_towers_out_as_far_as_there_are_any(load, tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text("model_name_or_path: a/b\nfinetuning_type: lora\nlora_target: all\n")
    llava = load("arch:llava", lora=str(file))
    paths = [path for path, module in llava.model.named_modules() if isinstance(module, LoraLayer)]
    assert paths
    assert not any("vision_tower" in path or "multi_modal_projector" in path for path in paths)
    assert "exclude_modules" not in load("arch:llama", lora=str(file)).requested
    file.write_text("model_name_or_path: a/b\nfinetuning_type: lora\nlora_target: all\nfreeze_vision_tower: false\n")
    assert any(
        "vision_tower" in path for path, module in load("arch:llava", lora=str(file)).model.named_modules() if isinstance(module, LoraLayer)
    )


@pytest.mark.parametrize("targets", ["all-linear", "[all-linear]"])
def test_trl_passes_a_single_entry_on_as_text(inspect, targets):
    assert inspect(TRL.replace("[q_proj, v_proj]", targets)).requested["target_modules"] == "all-linear"


def test_flags_win_over_a_trainers_file(inspect):
    assert inspect(TRL, lora_fields={"r": 2}).requested["r"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base_model: x\nadapter:\nsequence_len: 1\n", r"is a config of axolotl with adapter: none, which trains no LoRA"),
        ("model_name_or_path: x\nfinetuning_type: full\n", r"is a config of LLaMA-Factory with finetuning_type: full"),
        ("use_peft: false\nlora_r: 8\n", r"is a config of TRL without `use_peft: true`"),
        (
            "model:\n  _component_: torchtune.models.llama3.llama3_8b\n",
            r"is a config of torchtune with model: .*llama3_8b, which trains no LoRA",
        ),
        ("model_name_or_path: x\nlearning_rate: 1e-4\n", r"learning_rate"),
        ("model_name_or_path: x\n", r"holds no field of a LoRA config: nothing in it says what to adapt"),
        ("lora: {{r: 4}}\npeft: {{r: 8}}\n", r"holds several LoRA configs, under 'lora' and 'peft'"),
        ("model_name_or_path: x\nlora_r: 8\n", r"is a config of TRL without `use_peft: true`: TRL would train the whole model"),
    ],
)
def test_files_that_train_no_adapter_say_so(inspect, text, message):
    with pytest.raises(InspectionError, match=message):
        inspect(text)


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [
        (r"[base_model.model.model.norm]", r"model\.norm\.weight"),
        (r"['^base_model.model.lm_head.weight$[:10]', '.+lora_']", r"lm_head\.weight|lora_"),
        (r".+layers.0.+lora_A", r"layers\.0\..*lora_A"),
        (r"['^model.norm', 'norm', '.*norm']", r"(?!)"),
    ],
)
def test_axolotl_trains_the_unfrozen_parameters_and_nothing_else(inspect, patterns, trained):
    """It matches from the start of the wrapped model's names, and freezes the adapter with all else."""
    config = AXOLOTL.replace("lora_modules_to_save: [embed_tokens]\n", "")
    model = inspect(f"{config}unfrozen_parameters: {patterns}\n").model
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        name for name, _ in model.named_parameters() if re.search(trained, name)
    }


def test_axolotls_overrides_of_the_models_config_are_set_before_it_is_built(inspect, tiny_llama):
    overrides = "overrides_of_model_config:\n  num_hidden_layers: 1\n  rope_scaling:\n    type: linear\n    factor: 2.0\n"
    subject = inspect(AXOLOTL + overrides)
    config = subject.model.get_base_model().config
    assert (config.num_hidden_layers, config.rope_parameters["factor"]) == (1, 2.0)
    assert not any("overrides_of_model_config" in note for note in subject.notes)
    assert inspect(AXOLOTL + overrides.replace("overrides_of_", "")).model.get_base_model().config.num_hidden_layers == 1
    assert inspect(AXOLOTL + overrides, config_fields={"num_hidden_layers": 3}).model.get_base_model().config.num_hidden_layers == 3
    with pytest.raises(InspectionError, match=r"num_layer: the configuration of llama has no 'num_layer'"):
        inspect(AXOLOTL + "overrides_of_model_config:\n  num_layer: 1\n")


def test_axolotls_classifier_is_built_with_its_labels(inspect):
    model = inspect(AXOLOTL + "model_type: AutoModelForSequenceClassification\nnum_labels: 5\nlora_exclude_modules: [q_proj]\n").model
    assert type(model.get_base_model()).__name__ == "LlamaForSequenceClassification"
    assert model.get_base_model().config.num_labels == 5
    assert model.peft_config["default"].task_type == "SEQ_CLS"
    assert model.peft_config["default"].exclude_modules == {"q_proj"}


def test_files_that_leave_the_model_to_the_command_line_are_recognised_too(load, tiny_llama, tmp_path):
    file = tmp_path / "train.yaml"
    for text, trainer in ((AXOLOTL, "axolotl"), (LLAMA_FACTORY, "LLaMA-Factory"), (TRL, "TRL")):
        lines = text.format(model=tiny_llama).splitlines()
        file.write_text("\n".join(line for line in lines if str(tiny_llama) not in line))
        assert any(f"is a config of {trainer}" in note for note in load(str(tiny_llama), lora=str(file)).notes)


def test_numbers_with_an_exponent_are_numbers(inspect):
    """YAML 1.1 takes 5e-2 for a text, and the trainers make a number of it."""
    for text in (TRL, AXOLOTL):
        assert inspect(text + "lora_dropout: 5e-2\n").requested["lora_dropout"] == 0.05


@pytest.mark.parametrize(
    ("text", "wrong", "message"),
    [
        (TRL, "lora_target_modules: 5", r"lora_target_modules is 5, and a list of names is needed"),
        (TRL, "model_name_or_path: [a]", r'model_name_or_path is \["a"\], and a name is needed'),
        (TRL, "gradient_checkpointing_kwargs: true", r"gradient_checkpointing_kwargs is true, and a mapping of fields is needed"),
        (LLAMA_FACTORY, "lora_rank: {{a: 1}}", r'lora_rank is \{"a": 1\}, and a whole number is needed'),
        (AXOLOTL, "overrides_of_model_config: 5", r"overrides_of_model_config is 5, and a mapping of fields is needed"),
        (AXOLOTL, "unfrozen_parameters: ['((']", r"unfrozen_parameters holds no regular expression: missing \)"),
        (
            SECTIONS,
            "trainer: {{gradient_checkpointing: true, gradient_checkpointing_kwargs: 1}}",
            r"trainer: gradient_checkpointing_kwargs is 1",
        ),
    ],
)
def test_a_value_of_another_kind_is_named(inspect, text, wrong, message):
    with pytest.raises(InspectionError, match=message):
        inspect(f"{text}{wrong}\n")
