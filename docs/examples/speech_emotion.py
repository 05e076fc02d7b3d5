"""Speech emotion recognition: a Qwen2-Audio encoder with LoRA under a small trainable head.

The training module of a bug report: `proj_speech` learned, and 0 of 384 LoRA parameters received a gradient.
`build_model` is the healthy program. Each other builder brings one way in which exactly this picture arises:

    peft-inspect gradcheck docs/examples/speech_emotion.py:build_detached --batch docs/examples/speech_emotion.py:make_batch

or, the same through one switch, `SPEECH_EMOTION_FAULT=detached` and `…:build_model`.
The model is Qwen2-Audio from its config class, 32 encoder layers deep as the real one and narrow enough for seconds on a CPU.
"""

import copy
import os
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

EMOTIONS = ("angry", "happy", "neutral", "sad")
MEL_BINS, MEL_FRAMES = 16, 16
LORA = {"r": 4, "lora_alpha": 8, "target_modules": r".*audio_tower.*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"}


def load_base() -> Qwen2AudioForConditionalGeneration:
    """A Qwen2-Audio model with random weights; stands for `from_pretrained("Qwen/Qwen2-Audio-7B")`."""
    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": MEL_BINS,
            "d_model": 16,
            "encoder_layers": 32,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "max_source_positions": MEL_FRAMES // 2,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": 64,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
        audio_token_index=63,
    )
    return Qwen2AudioForConditionalGeneration(config)


class SpeechEmotionModel(nn.Module):
    """Classifies the emotion of an utterance from the mean of its encoder states."""

    def __init__(self, peft_model: PeftModel) -> None:
        super().__init__()
        self.model = peft_model
        width = peft_model.config.audio_config.d_model
        self.proj_speech = nn.Linear(width, len(EMOTIONS))

    def _extract_from_audio_tower(self, input_features: torch.Tensor) -> torch.Tensor:
        """Mel features of shape [batch, mel bins, frames] to encoder states of shape [batch, time, width]."""
        # The access path is not the fault: self.model.base_model.model.model.audio_tower is this very object.
        audio_tower = audio_tower_of(self.model.model)
        return audio_tower(input_features).last_hidden_state

    def forward(self, input_features: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Logits of shape [batch, emotions], and the loss where `labels` of shape [batch] are given."""
        states = self._extract_from_audio_tower(input_features)
        logits = self.proj_speech(states.mean(dim=1))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def build_healthy() -> SpeechEmotionModel:
    """All 384 LoRA parameters and the head receive gradients."""
    return SpeechEmotionModel(get_peft_model(load_base(), LoraConfig(**LORA))).train()


# --- reentrant checkpointing on the tower -------------------------------------------------------


def build_reentrant_checkpointing() -> SpeechEmotionModel:
    """Someone ran out of memory on long utterances and switched checkpointing on for the encoder alone."""
    model = build_healthy()
    audio_tower_of(model.model.model).gradient_checkpointing_enable({"use_reentrant": True})
    return model


# --- no_grad around the feature helper ----------------------------------------------------------


class FrozenEncoderModel(SpeechEmotionModel):
    """From the days in which only the head was trained."""

    @torch.no_grad()
    def _extract_from_audio_tower(self, input_features: torch.Tensor) -> torch.Tensor:
        audio_tower = audio_tower_of(self.model.model)
        return audio_tower(input_features).last_hidden_state


def build_no_grad() -> FrozenEncoderModel:
    """The encoder got LoRA; the decorator of the helper stayed."""
    return FrozenEncoderModel(get_peft_model(load_base(), LoraConfig(**LORA))).train()


# --- resumed without is_trainable ---------------------------------------------------------------


def build_resumed() -> SpeechEmotionModel:
    """The second round of training starts from the saved adapter, which loads for inference unless told otherwise."""
    with tempfile.TemporaryDirectory() as checkpoint:
        get_peft_model(load_base(), LoraConfig(**LORA)).save_pretrained(checkpoint)
        return SpeechEmotionModel(PeftModel.from_pretrained(load_base(), checkpoint)).train()


# --- a freeze helper after the wrapping ---------------------------------------------------------


def freeze_backbone(model: SpeechEmotionModel) -> None:
    """Train the head only."""
    for parameter in model.model.parameters():
        parameter.requires_grad = False


def build_frozen() -> SpeechEmotionModel:
    """The helper that used to freeze the bare encoder now runs over the LoRA weights too."""
    model = build_healthy()
    freeze_backbone(model)
    return model


# --- a deep copy of the tower -------------------------------------------------------------------


class OwnEncoderModel(SpeechEmotionModel):
    """Keeps the encoder as a module of its own, so that it can be exported without the language model."""

    def __init__(self, peft_model: PeftModel, encoder: nn.Module) -> None:
        super().__init__(peft_model)
        self.encoder = encoder

    def _extract_from_audio_tower(self, input_features: torch.Tensor) -> torch.Tensor:
        return self.encoder(input_features).last_hidden_state


def build_copied_tower() -> OwnEncoderModel:
    """The encoder was copied out of the base before the base was wrapped: LoRA went into the other one."""
    base = load_base()
    encoder = copy.deepcopy(audio_tower_of(base)).requires_grad_(False)
    return OwnEncoderModel(get_peft_model(base, LoraConfig(**LORA)), encoder).train()


# --- a detach before the head -------------------------------------------------------------------


class CachedFeaturesModel(SpeechEmotionModel):
    """Keeps the features of the last batch for the confusion plots."""

    def forward(self, input_features: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        states = self._extract_from_audio_tower(input_features)
        self.last_features = features = states.detach()
        logits = self.proj_speech(features.mean(dim=1))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def build_detached() -> CachedFeaturesModel:
    """The detached features for the plots are also what the head is trained on."""
    return CachedFeaturesModel(get_peft_model(load_base(), LoraConfig(**LORA))).train()


# --- the switch ---------------------------------------------------------------------------------

FAULTS = {
    "": build_healthy,
    "reentrant-checkpointing": build_reentrant_checkpointing,
    "no-grad": build_no_grad,
    "resumed": build_resumed,
    "frozen": build_frozen,
    "copied-tower": build_copied_tower,
    "detached": build_detached,
}


def build_model() -> SpeechEmotionModel:
    """The healthy program, or the one with the fault that SPEECH_EMOTION_FAULT names."""
    return FAULTS[os.environ.get("SPEECH_EMOTION_FAULT", "")]()


def make_batch() -> dict[str, torch.Tensor]:
    """Two utterances: mel features of shape [2, mel bins, frames] and their emotions."""
    generator = torch.Generator().manual_seed(0)
    return {"input_features": torch.randn(2, MEL_BINS, MEL_FRAMES, generator=generator), "labels": torch.tensor([1, 3])}


if __name__ == "__main__":
    module = build_model()
    loss = module(**make_batch())["loss"]
    loss.backward()
    lora = [parameter for name, parameter in module.named_parameters() if "lora_" in name]
    print(f"loss {loss.item():.4f}, LoRA parameters with a gradient: {sum(p.grad is not None for p in lora)}/{len(lora)}")


def audio_tower_of(base: Qwen2AudioForConditionalGeneration) -> nn.Module:
    """It is held by the model inside from transformers 5.9 on, and by the model itself before."""
    return getattr(base, "model", base).audio_tower
