"""Towers and stacks come from how a model is built: real architectures at their default size, on the meta device."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

from peft_inspect.records import Subject
from peft_inspect.rules.examples import tiny_llama
from peft_inspect.structure import read_structure

pytestmark = pytest.mark.filterwarnings("ignore")

TOWERS = {
    ("llama", AutoModelForCausalLM): {"model": ["model.layers"]},
    ("bert", AutoModelForCausalLM): {"bert": ["bert.encoder.layer"]},
    ("gpt2", AutoModelForCausalLM): {"transformer": ["transformer.h"]},
    ("t5", AutoModelForSeq2SeqLM): {"encoder": ["encoder.block"], "decoder": ["decoder.block"]},
    ("llava", AutoModelForImageTextToText): {
        "model.vision_tower": ["model.vision_tower.encoder.layers"],
        "model.language_model": ["model.language_model.layers"],
        "model.multi_modal_projector": [],
    },
    ("qwen2_audio", AutoModelForSeq2SeqLM): {
        "model.audio_tower": ["model.audio_tower.layers"],
        "model.language_model": ["model.language_model.layers"],
        "model.multi_modal_projector": [],
    },
    ("swin", AutoModel): {"encoder": [f"encoder.layers.{stage}.blocks" for stage in range(4)]},
    ("wav2vec2", AutoModel): {"encoder": ["encoder.layers"]},
    ("deepseek_v3", AutoModelForCausalLM): {"model": ["model.layers"]},
}


def read(model):
    return read_structure(Subject(model, "a test", weights="none"))


def built(name, auto):
    with torch.device("meta"):
        return auto.from_config(AutoConfig.for_model(name))


@pytest.mark.parametrize(("name", "auto"), TOWERS, ids=[name for name, _ in TOWERS])
def test_towers_and_their_stacks(name, auto):
    structure = read(built(name, auto))
    assert {tower.path: [stack.path for stack in tower.stacks] for tower in structure.towers} == TOWERS[name, auto]


def test_encoder_and_decoder_are_one_family_and_language_and_vision_are_two():
    seq2seq = read(built("t5", AutoModelForSeq2SeqLM))
    assert len({tower.family for tower in seq2seq.towers}) == 1
    vision = read(built("llava", AutoModelForImageTextToText))
    assert len({tower.family for tower in vision.towers}) == 3


def test_users_own_networks_side_by_side_are_towers():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.language = tiny_llama()
            self.speech = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32), 2, enable_nested_tensor=False)
            self.fuse = nn.Sequential(nn.Linear(16, 16), nn.GELU())

    towers = read(Own()).towers
    assert [tower.path for tower in towers] == ["language", "speech", "fuse"]
    assert len({tower.family for tower in towers}) == 3


def test_experts_beside_one_another_are_no_stack():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(4))
            self.gate = nn.Linear(4, 4)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(3))

    structure = read(Model())
    assert [stack.path for tower in structure.towers for stack in tower.stacks] == ["blocks"]
    assert [module.path for module in structure.modules if module.routes] == [f"blocks.{index}.gate" for index in range(3)]
    rows = {row.name: len(row.layers) for row in structure.coverage}
    assert rows == {"experts.*.0": 12, "experts.*.2": 12, "gate": 3}
