"""The user's own content goes through the tokenizer and processor files of a local folder, and nowhere else."""

from __future__ import annotations

import struct
import wave

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from peft_inspect.batch import make_batch
from peft_inspect.records import InspectionError, Subject

WORDS = {"[UNK]": 0, "[PAD]": 1, "ships": 2, "and": 3, "horns": 4}


@pytest.fixture
def llama():
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=64
    )
    return LlamaForCausalLM(config)


@pytest.fixture
def folder(tmp_path):
    """A model folder with a tokenizer of five words."""
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(tmp_path)
    LlamaConfig().save_pretrained(tmp_path)
    return str(tmp_path)


def test_text_goes_through_the_folders_tokenizer(llama, folder):
    batch, info = make_batch(Subject(model=llama, source="test", folder=folder, content={"text": "ships and horns"}))
    assert batch["input_ids"].tolist() == [[2, 3, 4]]
    assert batch["labels"].tolist() == [[2, 3, 4]]
    assert "content" in info.made_by
    assert llama(**batch).loss.requires_grad


def test_a_folder_with_a_tokenizer_is_used_unasked(llama, folder):
    batch, info = make_batch(Subject(model=llama, source="test", folder=folder))
    assert 3 in batch["input_ids"].flatten().tolist()
    assert any("tokenizer" in note for note in info.notes)


def test_content_without_a_folder_says_what_it_needs(llama):
    with pytest.raises(InspectionError, match="--text needs tokenizer or processor files"):
        make_batch(Subject(model=llama, source="test", content={"text": "ships"}))


def test_a_folder_without_processor_files_says_so(llama, tmp_path):
    with pytest.raises(InspectionError, match="do not load"):
        make_batch(Subject(model=llama, source="test", folder=str(tmp_path), content={"text": "ships"}))


def write_sound(path, rate):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack("<8000h", *range(8000)))


def test_sound_is_read_and_resampled_to_what_the_extractor_wants(tmp_path):
    sizes = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (5, 8), "num_feat_extract_layers": 2}
    attention = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**attention, **sizes, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2))
    model.config.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(tmp_path)
    write_sound(tmp_path / "horn.wav", 8_000)
    batch, _ = make_batch(Subject(model=model, source="test", folder=str(tmp_path), content={"audio": str(tmp_path / "horn.wav")}))
    assert batch["input_values"].shape == (1, 16_000)
    assert model(**batch).loss.requires_grad


def test_a_file_that_is_no_sound_says_so(tmp_path, llama):
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    (tmp_path / "horn.wav").write_bytes(b"not sound")
    with pytest.raises(InspectionError, match="cannot be read as a WAV file"):
        make_batch(Subject(model=llama, source="test", folder=str(tmp_path), content={"audio": str(tmp_path / "horn.wav")}))
