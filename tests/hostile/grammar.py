"""Inputs that are nearly right: of every kind that the command reads, a good one with values that somebody means ill with put in."""
# ruff: noqa: E501 - tables of values

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

from tests.hostile.worker import PROOF, Case

MODEL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64,
}  # fmt: skip
LORA: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "bias": "none",
    "task_type": "CAUSAL_LM",
}
TRAINERS: tuple[dict[str, Any], ...] = (
    {"base_model": "m", "adapter": "lora", "lora_r": 8, "lora_target_modules": ["q_proj"], "gradient_checkpointing": True},
    {"model_name_or_path": "m", "stage": "sft", "finetuning_type": "lora", "lora_rank": 8, "lora_target": "all"},
    {"model_name_or_path": "m", "use_peft": True, "lora_r": 8, "lora_target_modules": ["q_proj"]},
)
_RUN = f"open('{PROOF}','w')"
TEXTS = (
    "", " ", "\x1b[31mred\x1b[0m", "a\n::error::b", "##[error]c", "\u202eabc", "\ufffe", "\ud800", "x" * 5000, "~nosuchuser/x", "../../etc/passwd", "\x00",
    "<script>alert(1)</script>", f"__import__('os').system('touch {PROOF}')", f"$(touch {PROOF})", f"; touch {PROOF}", "(.*)*x", "((a|.)*)*z", "[", "(?P<", "null",
    "q_proj", "all-linear", "evil.py:build", "https://localhost:9/x", "%s%n{0}{x.__class__}", "]]>", "日本", "\r\n", "file:///etc/passwd",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 10**9, 2**31, 2**62, 2**63, -(2**63), 10**18, 0.5, 1e308, float("inf"), float("nan"), 10**400)


def value(random_: random.Random, depth: int = 0) -> Any:
    """Anything that JSON can hold."""
    kind = random_.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return random_.choice(TEXTS)
    if kind < 4:
        return random_.choice(NUMBERS)
    if kind == 4:
        return random_.choice((None, True, False))
    if kind == 5:
        return [value(random_, depth + 1) for _ in range(random_.choice((0, 1, 2, 2, 40)))]
    return {random_.choice((*TEXTS, "a", "b")): value(random_, depth + 1) for _ in range(random_.randrange(4))}


def spoilt(random_: random.Random, good: dict[str, Any], more: tuple[str, ...] = ()) -> dict[str, Any]:
    """A mapping with one to three of its entries replaced, left out or added."""
    bad = dict(good)
    for _ in range(random_.randint(1, 3)):
        name = random_.choice((*good, *more, random_.choice(TEXTS)))
        if random_.random() < 0.15:
            bad.pop(name, None)
        else:
            bad[name] = value(random_)
    return bad


def torn(random_: random.Random, data: bytes) -> bytes:
    """Bytes with some cut off, changed or put in."""
    where = random_.randrange(len(data) + 1)
    return random_.choice(
        (data[:where], data[:where] + random_.randbytes(4) + data[where:], data[:where] + random_.randbytes(4) + data[where + 4 :])
    )


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=True)


def _argument(text: str) -> str:
    """As a process can be given: no null characters and no half ones."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _config(random_: random.Random) -> Case:
    more = (
        "num_labels",
        "id2label",
        "rope_parameters",
        "dtype",
        "auto_map",
        "quantization_config",
        "layer_types",
        "tie_word_embeddings",
        "head_dim",
    )
    text = _json(spoilt(random_, MODEL, more))
    data = torn(random_, text.encode()) if random_.random() < 0.2 else text
    return Case(
        "config",
        ("tree", "m", "--lora", "l.json", "--format", random_.choice(("text", "json"))),
        {"m/config.json": data, "l.json": _json(LORA)},
    )


def _lora(random_: random.Random) -> Case:
    more = ("exclude_modules", "rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern", "modules_to_save", "target_parameters",
            "layer_replication", "init_lora_weights", "use_dora", "trainable_token_indices", "revision", "base_model_name_or_path", "auto_mapping")  # fmt: skip
    return Case(
        "LoRA file", ("tree", "m", "--lora", "l.json"), {"m/config.json": _json(MODEL), "l.json": _json(spoilt(random_, LORA, more))}
    )


def _adapter(random_: random.Random) -> Case:
    names = [f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_{x}.weight" for n in (0, 1) for x in "AB"]
    header = {
        name: {"dtype": "F32", "shape": [2, 16] if "lora_A" in name else [16, 2], "data_offsets": [128 * i, 128 * i + 128]}
        for i, name in enumerate(names)
    }
    if random_.random() < 0.6:
        name = random_.choice(names)
        header[name] = spoilt(random_, header[name])
    if random_.random() < 0.3:
        header = spoilt(random_, header, ("__metadata__",))
    text = _json(header).encode()
    length = random_.choice((len(text), len(text), len(text), 2**63, 0, 99_000_000, len(text) + 1))
    weights = struct.pack("<Q", length) + text + bytes(512)
    files = {
        "m/config.json": _json(MODEL),
        "a/adapter_config.json": _json(
            {**(spoilt(random_, LORA) if random_.random() < 0.5 else LORA), "base_model_name_or_path": random_.choice(("m", "m", *TEXTS))}
        ),
        "a/adapter_model.safetensors": torn(random_, weights) if random_.random() < 0.3 else weights,
    }
    return Case("adapter", ("tree", "a", *random_.choice(((), ("--base", "m")))), files)


def _trainer(random_: random.Random) -> Case:
    lines = "".join(f"{json.dumps(k)}: {json.dumps(v)}\n" for k, v in spoilt(random_, random_.choice(TRAINERS)).items())
    tags = (
        "!!int",
        "!!python/object/apply:os.system ['touch " + PROOF + "']",
        "&a [*a]",
        "2026-13-01",
        "<<: *x",
        "!!binary x",
        "!!set {a}",
        "? [a]",
        "0x" + "f" * 5000,
    )
    text = lines + (f"extra: {random_.choice(tags)}\n" if random_.random() < 0.4 else "")
    return Case(
        "trainer",
        ("tree", "m", "--lora", "t.yaml"),
        {"m/config.json": _json(MODEL), "t.yaml": torn(random_, text.encode()) if random_.random() < 0.2 else text},
    )


def _batch(random_: random.Random) -> Case:
    good: dict[str, Any] = {"input_ids": [[1, 2, 3]], "labels": [[1, 2, 3]], "attention_mask": [[1, 1, 1]]}
    return Case(
        "batch", ("gradcheck", "m", "--lora", "l.json", "--batch", "b.json"),
        {"m/config.json": _json(MODEL), "l.json": _json(LORA), "b.json": _json(spoilt(random_, good))},
        user_code=True,  # the model's own traceback is shown for a batch that it does not take
    )  # fmt: skip


def _options(random_: random.Random) -> Case:
    text = _argument(random_.choice((*TEXTS, *map(str, NUMBERS[:-1]), "[" * 3000, "9" * 5000)))
    option = random_.choice(
        (
            "--target-modules",
            "-r",
            "--lora-alpha",
            "--task-type",
            "--set",
            "--config-set",
            "--lora",
            "--adapter",
            "--batch",
            "--select",
            "--weights",
            "--format",
        )
    )
    key = (
        random_.choice(("rank_pattern=", "num_hidden_layers=", "a.b.c=", "lora_alpha=", "")) if option in ("--set", "--config-set") else ""
    )
    return Case(
        "options",
        (random_.choice(("tree", "check")), "m", "--target-modules", "q_proj", option, key + text),
        {"m/config.json": _json(MODEL)},
        user_code=True,
    )


def _names(random_: random.Random) -> Case:
    text = _argument(random_.choice(TEXTS) + random_.choice(("", "/", ":x", ".py:f", "@main", ".json")))
    return Case("names", ("tree", "--target-modules", "q_proj", "--", text), {"x.json": "{}"})


KINDS: tuple[Callable[[random.Random], Case], ...] = (_config, _lora, _adapter, _trainer, _batch, _options, _names)
