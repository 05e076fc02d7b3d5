"""What people saw before they came here: error messages, warnings and symptoms, each with what it means and the rules that tell the cause.

The texts are those of torch, transformers, PEFT and accelerate as of the versions in `constraints.txt`, without what varies in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[a-z_]{2,}")
_ENOUGH = 0.6  # share of a message's words that have to be in what was asked, or the other way round


@dataclass(frozen=True)
class Message:
    """A message or symptom."""

    text: str
    said_by: str  # the library that says it; "" for what people observe
    means: str  # what is behind it, in a few sentences
    rules: tuple[str, ...]  # codes of the rules that tell the causes apart, likeliest first


def matching(asked: str) -> tuple[Message, ...]:
    """The messages that `asked` quotes, in whole or in part, best first."""
    words = _words(asked)
    scored = [(score, message) for message in MESSAGES if (score := _likeness(words, _words(message.text))) >= _ENOUGH]
    return tuple(message for _, message in sorted(scored, key=lambda pair: -pair[0]))


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def _likeness(asked: frozenset[str], known: frozenset[str]) -> float:
    """How much of the shorter text the longer one has; what is less than two words long is like nothing."""
    shorter = min(len(asked), len(known))
    return len(asked & known) / shorter if shorter > 1 else 0.0


MESSAGES: Sequence[Message] = (
    Message(
        "None of the inputs have requires_grad=True. Gradients will be None",
        "torch",
        "Reentrant activation checkpointing got a block none of whose inputs requires grad, as is usual on a frozen base model. It drops "
        "the graph of that block, so the adapters in it get no gradient. It is harmless only where the block holds nothing that trains.",
        ("PI304",),
    ),
    Message(
        "element 0 of tensors does not require grad and does not have a grad_fn",
        "torch",
        "The loss is connected to nothing that trains: every adapter is frozen, ran without gradients, or was cut off, or the loss was "
        "made anew from a number.",
        ("PI301", "PI302", "PI303", "PI304", "PI305", "PI307", "PI112"),
    ),
    Message(
        "Expected to have finished reduction in the prior iteration before starting a new one",
        "torch (DDP)",
        "Some trainable parameters got no gradient in the last step, and DDP still waits for them. Setting find_unused_parameters=True "
        "hides it; which parameters they are, and whether they should have trained, is the question.",
        ("PI308", "PI208", "PI204", "PI103"),
    ),
    Message(
        "Target modules not found in the base model. Please check the target modules and try again",
        "PEFT",
        "No entry of target_modules is the end of any module path of this model. The names belong to another architecture, or the "
        "projections are fused here under another name.",
        ("PI101",),
    ),
    Message(
        "No modules were targeted for adaptation",
        "PEFT",
        "Names matched and were then dropped again, by exclude_modules, layers_to_transform or a conversion for fused experts.",
        ("PI101", "PI108", "PI109"),
    ),
    Message(
        "target_parameters were set but no parameter was matched",
        "PEFT",
        "Fused experts have other parameter names in this model, or the path needs a longer ending to be told from others.",
        ("PI101", "PI105"),
    ),
    Message(
        "The following keys did not match any targeted module and were ignored",
        "PEFT",
        "A key of rank_pattern or alpha_pattern applies to nothing, often because it was copied from the wrapped model with its prefix.",
        ("PI107",),
    ),
    Message(
        "You have passed exclude_modules but no modules were excluded",
        "PEFT",
        "Entries of exclude_modules are the ends of module paths, not their beginnings: the name of a tower excludes nothing inside it.",
        ("PI109", "PI103"),
    ),
    Message(
        "Please specify `target_modules` in `peft_config`",
        "PEFT",
        "PEFT keeps default targets for some model types only, and has none for this one.",
        ("PI101",),
    ),
    Message(
        "Found missing adapter keys while loading the checkpoint",
        "PEFT",
        "Adapter layers of the model have no tensor in the file and stay at their initialisation, where an adapter does nothing. Mostly "
        "the file's keys carry the prefix of another class or of another version of the model.",
        ("PI401", "PI402", "PI405"),
    ),
    Message(
        "size mismatch for lora_A.default.weight: copying a param with shape from checkpoint",
        "torch",
        "The file has another rank than its config, or was made for a base of another width.",
        ("PI403", "PI405"),
    ),
    Message(
        "LoRA tensor(s) have invalid shape. A 1-D or zero-sized lora_A / lora_B tensor indicates that shards were not gathered",
        "PEFT",
        "The file was saved from one process of several, without gathering: it holds nothing, or a slice.",
        ("PI404", "PI403"),
    ),
    Message(
        "You are trying to modify a model with PEFT for a second time",
        "PEFT",
        "get_peft_model changes the base in place; the layers of the first call stay in. Load the base again, or call unload() first.",
        ("PI114", "PI116"),
    ),
    Message(
        "Already found a `peft_config` attribute in the model. This will lead to having multiple adapters",
        "PEFT",
        "The base carries adapters already, or two PeftModels share one backbone.",
        ("PI114", "PI115", "PI116"),
    ),
    Message(
        "Model has `tie_word_embeddings=True` and a tied layer is part of the adapter",
        "PEFT",
        "The output layer and the embedding are one tensor; adapting or saving one side unties them.",
        ("PI111",),
    ),
    Message(
        "The model did not return a loss from the inputs, only the following keys",
        "transformers",
        "The batch has no labels under a name that the model's forward takes; with PEFT the Trainer cannot always read that name from the "
        "wrapped model (label_names). Run the program itself: what it trains is what counts.",
        ("PI320", "PI313"),
    ),
    Message(
        "You cannot perform fine-tuning on purely quantized models. Please attach trainable adapters",
        "transformers",
        "The Trainer found no adapter on the quantised model: the wrapping was left out, or what it returned was not passed on.",
        ("PI112",),
    ),
    Message(
        "optimizer got an empty parameter list",
        "torch",
        "No parameter required a gradient when the optimizer was made: the adapter was loaded for inference, or frozen before.",
        ("PI301", "PI302", "PI112", "PI317"),
    ),
    Message(
        "Attempting to unscale FP16 gradients",
        "torch",
        "The adapter weights themselves are float16, and a GradScaler wants float32 ones. PEFT keeps them in float32 unless "
        "autocast_adapter_dtype=False, or the model was cast after the wrapping.",
        ("PI314", "PI501"),
    ),
    Message(
        "No inf checks were recorded for this optimizer",
        "torch",
        "The optimizer of the GradScaler holds no parameter that got a gradient: it was made for other tensors, or nothing trains.",
        ("PI317", "PI302", "PI303"),
    ),
    Message(
        "Already following adapters were merged. You are now additionally merging",
        "PEFT",
        "An adapter is merged into its base weights: merged layers run the base alone, and there is nothing left to train.",
        ("PI206",),
    ),
    Message(
        "trainable params: 0 || all params || trainable%: 0.0000",
        "PEFT",
        "Every adapter weight is frozen: loaded without is_trainable=True, a config that says inference_mode, or a loop that froze all.",
        ("PI301", "PI302", "PI112"),
    ),
    Message(
        "loss does not decrease, loss stays flat",
        "",
        "A gradient that never arrives, arrives as zero, or an update too small for the dtype look alike from the loss curve.",
        ("PI303", "PI304", "PI302", "PI317", "PI310", "PI318", "PI501", "PI502"),
    ),
    Message(
        "loss is nan, loss is 0.0 and grad_norm is nan",
        "",
        "All labels of a batch are the ignore index, or a value outgrew its dtype. The first module that made it is named.",
        ("PI313", "PI315"),
    ),
    Message(
        "grad_norm is 0.0 in every step",
        "",
        "Gradients arrive and are exactly zero: something between the adapters and the loss multiplies by zero, the labels are masked, or "
        "float16 flushes them.",
        ("PI310", "PI318", "PI311", "PI312", "PI313", "PI314"),
    ),
    Message(
        "lora_B is all zeros after training",
        "",
        "No update ever reached the adapter. That the weights of lora_A look random proves nothing: they were so from the start.",
        ("PI304", "PI303", "PI302", "PI317", "PI502", "PI503", "PI404"),
    ),
    Message(
        "adapter has no effect after loading, output equals the base model",
        "",
        "The file's keys found no place in the model, the file is empty or untrained, or the adapter is loaded and not active.",
        ("PI401", "PI402", "PI404", "PI407", "PI207", "PI205"),
    ),
    Message(
        "merged model gives the same output as the base model",
        "",
        "The merge left the adapter out, wholly or in some layers, or scaled it otherwise.",
        ("PI408", "PI407", "PI401"),
    ),
    Message(
        "classification head is random after loading the adapter, newly initialized score.weight",
        "transformers",
        "The head was trained but is in no modules_to_save, so it was not written with the adapter.",
        ("PI406", "PI110", "PI113"),
    ),
    Message(
        "adapter weights do not change after optimizer.step",
        "",
        "The learning rate is zero, another optimizer steps, gradients were cleared before the step, or each update is lost to rounding.",
        ("PI501", "PI502", "PI503", "PI317"),
    ),
)
