"""Inputs that are nearly right: of every kind of file, option and name that the command reads, a good one with one thing wrong."""
# ruff: noqa: E501 - tables of values

from __future__ import annotations

import json
import random
import struct
from functools import cache
from typing import Any

from tests.hostile.values import NUMBERS, PROOF, TEXTS, argument, spoilt, torn
from tests.hostile.worker import Case

_TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}
_LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **_TEXT, "intermediate_size": 32, "num_key_value_heads": 2}
_QWEN2 = {**_LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
MODELS: tuple[dict[str, Any], ...] = (
    _LLAMA,
    {**_QWEN2, "tie_word_embeddings": True, "use_sliding_window": True, "max_window_layers": 1, "layer_types": ["full_attention", "sliding_attention"]},
    {**_LLAMA, "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 2, "num_experts_per_tok": 1},
    {"model_type": "bert", "architectures": ["BertForSequenceClassification"], **_TEXT, "intermediate_size": 32, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}},
    {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 64, "n_positions": 32},
    {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 64, "decoder_start_token_id": 0, "pad_token_id": 0},
    {"model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 16, "patch_size": 8},
    {"model_type": "qwen2_audio", "architectures": ["Qwen2AudioForConditionalGeneration"], "audio_token_index": 60, "text_config": _QWEN2,
     "audio_config": {"model_type": "qwen2_audio_encoder", "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 8, "max_source_positions": 20}},
)  # fmt: skip
_CONFIG_FIELDS = (
    "num_labels", "id2label", "rope_parameters", "dtype", "torch_dtype", "auto_map", "quantization_config", "layer_types", "tie_word_embeddings", "head_dim",
    "attention_dropout", "pad_token_id", "max_position_embeddings", "problem_type", "pruned_heads", "is_decoder", "hidden_act", "rms_norm_eps", "use_cache",
)  # fmt: skip
LORA: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "bias": "none",
    "task_type": "CAUSAL_LM",
}
_LORA_FIELDS: dict[str, tuple[Any, ...]] = {
    "target_modules": (["q_proj", "v_proj"], "all-linear", r".*\.(query|value)", ["c_attn"], ["q", "v"], [], ["layers.0.self_attn.q_proj"]),
    "exclude_modules": (["v_proj"], r".*layers\.1.*"),
    "rank_pattern": ({"q_proj": 4}, {r"layers\.0\..*": 1}),
    "alpha_pattern": ({"q_proj": 4},),
    "layers_to_transform": ([0], 1, [0, 1]),
    "layers_pattern": ("layers", ["layers", "h"]),
    "modules_to_save": (["lm_head"], ["embed_tokens", "classifier"]),
    "target_parameters": (["mlp.experts.gate_up_proj"], ["experts.down_proj"]),
    "layer_replication": ([[0, 2], [1, 2]],),
    "init_lora_weights": (True, False, "gaussian", "pissa", "pissa_niter_4", "olora", "orthogonal", "eva", "corda", "loftq", "lora_ga", "mica"),
    "use_dora": (True,), "use_rslora": (True,), "lora_bias": (True,), "fan_in_fan_out": (True,), "lora_dropout": (0.1, 0.0),
    "trainable_token_indices": ([1, 2], {"embed_tokens": [3]}), "bias": ("all", "lora_only"), "r": (1, 64, 10**6), "lora_alpha": (0, 0.5),
    "task_type": ("SEQ_CLS", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION", "TOKEN_CLS", "QUESTION_ANS", None), "use_qalora": (True,), "ensure_weight_tying": (True,),
    "peft_type": (*["LORA"] * 9, "IA3", "ADALORA", "LOHA", "VERA", "PREFIX_TUNING", "PROMPT_TUNING", "OFT", "LN_TUNING", "BOFT", "TRAINABLE_TOKENS", "RANDLORA"),
    "loftq_config": ({"loftq_bits": 4},), "eva_config": ({"rho": 2.0},), "alora_invocation_tokens": ([1, 2],), "revision": ("main",), "inference_mode": (True,),
    "base_model_name_or_path": ("m",), "auto_mapping": ({"base_model_class": "LlamaForCausalLM", "parent_library": "transformers"},), "runtime_config": ({"ephemeral_gpu_offload": True},),
}  # fmt: skip
TRAINERS: tuple[dict[str, Any], ...] = (
    {"base_model": "m", "adapter": "lora", "lora_r": 8, "lora_alpha": 4, "lora_target_modules": ["q_proj"], "lora_target_linear": True, "gradient_checkpointing": True,
     "gradient_checkpointing_kwargs": {"use_reentrant": True}, "unfrozen_parameters": ["^model.norm"], "overrides_of_model_config": {"num_hidden_layers": 1}, "sequence_len": 16},
    {"model_name_or_path": "m", "stage": "sft", "finetuning_type": "lora", "lora_rank": 8, "lora_target": "all", "additional_target": "embed_tokens", "freeze_vision_tower": False},
    {"model_name_or_path": "m", "use_peft": True, "lora_r": 8, "lora_alpha": 8, "lora_target_modules": ["q_proj"], "lora_task_type": "CAUSAL_LM", "load_in_4bit": True},
    {"model": {"_component_": "torchtune.models.llama3.lora_llama3_8b", "lora_attn_modules": ["q_proj", "output_proj"], "apply_lora_to_mlp": True, "lora_rank": 4, "lora_alpha": 8}, "checkpointer": {"checkpoint_dir": "m"}, "enable_activation_checkpointing": True},
    {"model_name_or_path": "m", "peft_config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}, "training_arguments": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}},
    {"model": {"name_or_path": "m", "torch_dtype": "bfloat16"}, "lora": {"_target_": "peft.LoraConfig", "r": 4, "target_modules": ["q_proj"]}, "trainer": {"gradient_checkpointing": True}},
    {"model": "m", "tuner_type": "lora", "lora_rank": 4, "target_modules": ["all-linear"], "freeze_vit": True, "freeze_llm": False, "target_regex": None, "modules_to_save": ["lm_head"]},
    {"model": "m", "fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"keys": ["self_attn.q_proj"], "rank": 4, "scale": 2.0, "dropout": 0.0}, "grad_checkpoint": True},
    {"checkpoint_dir": "m", "lora_r": 4, "lora_alpha": 8, "lora_query": True, "lora_key": False, "lora_value": True, "lora_projection": False, "lora_mlp": False, "lora_head": False},
    {"pretrain": "m", "lora_rank": 4, "lora_alpha": 8, "target_modules": "all-linear", "zero_stage": 2, "micro_train_batch_size": 1},
    {"actor_rollout_ref": {"model": {"path": "m", "lora_rank": 4, "lora_alpha": 8, "target_modules": "all-linear", "enable_gradient_checkpointing": True}}},
    {"model_name": "m", "lora": {"lora_r": 4, "lora_alpha": 8, "target_modules": "q_proj, v_proj", "use_loftq": False, "finetune_language_layers": True}, "training": {"training_type": "lora"}},
    {"model": {"pretrained_model_name_or_path": "m"}, "peft": {"_target_": "nemo_automodel.components._peft.lora.PeftConfig", "target_modules": ["*_proj"], "dim": 4, "alpha": 8, "match_all_linear": False}, "step_scheduler": {"max_steps": 1}},
    {"model": "m", "model_class": "llm", "peft_config": {"name": "lora", "r": 4, "lora_alpha": 8, "target_modules": "all"}, "train_dataset": "x"},
)  # fmt: skip
_YAML = (
    "!!int", "!!float x", "!!python/object/apply:os.system ['touch " + PROOF + "']", "!!python/name:os.system", "&a [*a]", "&a {b: *a}", "2026-13-01", "<<: *x", "!!binary x", "!!set {a}",
    "? [a]", "0x" + "f" * 5000, "9" * 5000, "1:" * 900 + "1", "!custom {a: 1}", "!!timestamp x", "!!omap [a: 1]", "!!null x", "!!bool x", "[" * 300 + "]" * 300, "&a " + "[*a, *a]", "'\\ud800'", "%TAG ! x:",
)  # fmt: skip
_COMMANDS = ("tree", "tree", "gradcheck", "check", "check")
FORMATS = {
    "tree": ("text", "json", "html", "svg", "markdown"),
    "gradcheck": ("text", "json", "html", "svg", "markdown"),
    "check": ("text", "json", "html", "sarif", "github", "junit", "markdown"),
}


def written(data: Any) -> str:
    """As JSON; Python writes no number of more than 4,300 digits, so that those stand as text first."""
    held = [10**400, 10**5000]

    def named(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: named(entry) for key, entry in item.items()}
        if isinstance(item, list):
            return [named(entry) for entry in item]
        return f"\0{held.index(item)}" if not isinstance(item, (bool, float)) and item in held else item

    text = json.dumps(named(data), ensure_ascii=True)
    return text.replace('"\\u00000"', "1" + "0" * 400).replace('"\\u00001"', "1" + "0" * 5000)


def asked(draw: random.Random) -> tuple[str, ...]:
    """A command and what it writes."""
    command = draw.choice(_COMMANDS)
    return (command, "--format", draw.choice(FORMATS[command])) if draw.random() < 0.5 else (command,)


def _model(draw: random.Random) -> dict[str, Any]:
    return draw.choice((MODELS[0], *MODELS))


def lora_of(draw: random.Random) -> dict[str, Any]:
    """A LoRA config of which every field is good by itself."""
    fields = draw.sample([*_LORA_FIELDS], draw.choice((0, 1, 1, 2, 3)))
    targets = draw.choice(("all-linear", "all-linear", ["q_proj"]))
    return {**LORA, "target_modules": targets, "task_type": None, **{name: draw.choice(_LORA_FIELDS[name]) for name in fields}}


def _config(draw: random.Random) -> Case:
    text = written(spoilt(draw, _model(draw), _CONFIG_FIELDS))
    data = torn(draw, text.encode()) if draw.random() < 0.05 else text
    more = draw.choice(((), (), (), ("--reduce",), ("--weights", "random")))
    return Case("config", (*asked(draw), "m", "--lora", "l.json", *more), {"m/config.json": data, "l.json": written(lora_of(draw))})


def _lora(draw: random.Random) -> Case:
    good = lora_of(draw)
    text = written(spoilt(draw, good, (*_LORA_FIELDS,)) if draw.random() < 0.7 else good)
    data = torn(draw, text.encode()) if draw.random() < 0.03 else text
    more = draw.choice(((), (), ("--weights", "random")))
    return Case("LoRA file", (*asked(draw), "m", "--lora", "l.json", *more), {"m/config.json": written(_model(draw)), "l.json": data})


def _packed(header: Any, data: bytes, length: int | None = None) -> bytes:
    text = written(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _spoilt_header(draw: random.Random, header: dict[str, Any], size: int) -> bytes:
    """A safetensors file with a header that is nearly right."""
    if draw.random() < 0.7:
        name = draw.choice([*header])
        other = draw.choice(
            (
                name.replace("lora_A", "lora_C"),
                name.replace(".0.", ".7."),
                name + ".extra",
                name.replace("model.", "", 1),
                draw.choice(TEXTS),
            )
        )
        header = {
            (other if key == name and draw.random() < 0.5 else key): spoilt(draw, entry) if key == name and draw.random() < 0.6 else entry
            for key, entry in header.items()
        }
    if draw.random() < 0.4:
        header = spoilt(draw, header, ("__metadata__",))
    length = draw.choice((2**63, 0, 99_000_000, size + 1)) if draw.random() < 0.1 else None
    data = _packed(header, bytes(size), length)
    return torn(draw, data) if draw.random() < 0.15 else data


def _laid_out(shapes: dict[str, list[int]]) -> tuple[dict[str, Any], int]:
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header, at


class _Payload:
    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {PROOF}",)


def _adapter(draw: random.Random) -> Case:
    names = [f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_{x}.weight" for n in (0, 1) for x in "AB"]
    header, size = _laid_out({name: [2, 16] if "lora_A" in name else [16, 2] for name in names})
    config = (
        {**LORA, "base_model_name_or_path": "m"}
        if draw.random() < 0.5
        else {**lora_of(draw), "base_model_name_or_path": draw.choice(("m", "m", *TEXTS))}
    )
    files: dict[str, str | bytes] = {
        "m/config.json": written(MODELS[0]),
        "a/adapter_config.json": written(spoilt(draw, config, (*_LORA_FIELDS,)) if draw.random() < 0.4 else config),
        "a/adapter_model.safetensors": _spoilt_header(draw, header, size),
    }
    if draw.random() < 0.08:
        import pickle

        del files["a/adapter_model.safetensors"]
        files["a/adapter_model.bin"] = pickle.dumps(_Payload())
    how = draw.choice((("a",), ("a", "--base", "m"), ("m", "--adapter", "a"), ("m", "--lora", "a", "--adapter", "a")))
    return Case("adapter", (*asked(draw), *how), files)


@cache
def _weights() -> tuple[dict[str, Any], int]:
    """Header and size of the weights of the first model."""
    shapes = {"model.embed_tokens.weight": [64, 16], "model.norm.weight": [16], "lm_head.weight": [64, 16]}
    for n in (0, 1):
        attention = {f"self_attn.{name}_proj.weight": [16, 16] for name in "qkvo"}
        mlp = {"mlp.gate_proj.weight": [32, 16], "mlp.up_proj.weight": [32, 16], "mlp.down_proj.weight": [16, 32]}
        norms = {"input_layernorm.weight": [16], "post_attention_layernorm.weight": [16]}
        shapes |= {f"model.layers.{n}.{name}": shape for name, shape in {**attention, **mlp, **norms}.items()}
    return _laid_out(shapes)


def _header(draw: random.Random) -> Case:
    """The weights of a model, or a batch, as a safetensors file."""
    files: dict[str, str | bytes] = {"m/config.json": written(MODELS[0])}
    if draw.random() < 0.3:
        header = {
            "input_ids": {"dtype": "I64", "shape": [1, 3], "data_offsets": [0, 24]},
            "labels": {"dtype": "I64", "shape": [1, 3], "data_offsets": [24, 48]},
        }
        files["b.safetensors"] = _spoilt_header(draw, header, 48)
        return Case("header", ("gradcheck", "m", "--target-modules", "q_proj", "--batch", "b.safetensors"), files)
    header, size = _weights()
    files["m/model.safetensors"] = _spoilt_header(draw, header, size)
    if draw.random() < 0.2:
        index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(header, "model.safetensors")}
        files["m/model.safetensors.index.json"] = written(spoilt(draw, index))
    return Case("header", (*asked(draw), "m", "--target-modules", "q_proj", "--weights", "pretrained"), files)


def _trainer(draw: random.Random) -> Case:
    good = draw.choice(TRAINERS)
    text = "".join(f"{written(name)}: {written(entry)}\n" for name, entry in (spoilt(draw, good) if draw.random() < 0.8 else good).items())
    if draw.random() < 0.3:
        text += f"{draw.choice(('extra', *good))}: {draw.choice(_YAML)}\n"
    more = draw.choice((("m",), ("m",), ()))
    data = torn(draw, text.encode()) if draw.random() < 0.08 else text
    return Case("trainer", (*asked(draw), *more, "--lora", "t.yaml"), {"m/config.json": written(MODELS[0]), "t.yaml": data})


_BATCHES: tuple[tuple[int, dict[str, Any]], ...] = (
    (0, {"input_ids": [[1, 2, 3]], "labels": [[1, 2, 3]], "attention_mask": [[1, 1, 1]]}),
    (3, {"input_ids": [[1, 2, 3], [4, 5, 6]], "labels": [0, 1], "token_type_ids": [[0, 0, 0], [1, 1, 1]]}),
    (5, {"input_ids": [[1, 2, 3]], "labels": [[1, 2]], "decoder_attention_mask": [[1, 1]]}),
    (6, {"pixel_values": [[[[0.5] * 16] * 16] * 3], "labels": [0]}),
)


def _batch(draw: random.Random) -> Case:
    which, good = draw.choice(_BATCHES)
    text = written(spoilt(draw, good, ("inputs_embeds", "position_ids", "use_cache", "return_dict", "output_attentions")))
    data = torn(draw, text.encode()) if draw.random() < 0.1 else text
    more = draw.choice(((), (), ("--weights", "random")))
    arguments = (draw.choice(("gradcheck", "check")), "m", "--target-modules", "all-linear", "--batch", "b.json", *more)
    return Case("batch", arguments, {"m/config.json": written(MODELS[which]), "b.json": data})


def _options(draw: random.Random) -> Case:
    """Any option of any command, with a value of its kind or of none."""
    from peft_inspect.cli.commands import COMMANDS, command

    name = draw.choice([*COMMANDS])
    given: list[str] = []
    options = [entry for entry in command(name).params if entry.opts[0].startswith("-")]
    for option in draw.sample(options, min(len(options), draw.choice((1, 1, 2, 3)))):
        given.append(draw.choice(option.opts))
        if not option.is_flag:
            given.append(argument(_for_option(draw, option.opts[-1])))
    told = {"explain": (draw.choice(("PI304", "pi3", *TEXTS)),), "run": (draw.choice(("train.py", "nothing.py", *TEXTS)), "--its", "own")}
    files = {
        "m/config.json": written(MODELS[0]),
        "l.json": written(LORA),
        "train.py": "print(__import__('sys').argv)\n",
        "a/adapter_config.json": written(LORA),
    }
    positional = told.get(name, ("m", "--target-modules", "q_proj") if draw.random() < 0.8 else ("m",))
    makes = frozenset({"peft-inspect.lock", "out.json", "out.txt", *given})
    return Case("options", (name, *given, *map(argument, positional)), files, makes=makes)


def _for_option(draw: random.Random, option: str) -> str:
    fitting = {
        "--set": ("use_dora=true", "rank_pattern={q_proj: 4}", "r=" + "9" * 5000, "a.b=1", "r=" + "[" * 3000, "=", "init_lora_weights=eva", "bias=" + "x" * 5000, "lora_alpha=.inf"),
        "--config-set": ("num_hidden_layers=1", "num_hidden_layers=" + "9" * 5000, "rope_parameters={a: 1}", "a.b.c=1", "x=" + "[" * 3000, "hidden_size=null", "id2label.0=x", "vocab_size=!!int", "torch_dtype=float8"),
        "--format": ("json", "sarif", "html", "svg", "junit", "xml"), "--also": ("json=out.json", "sarif=/dev/full", "json", "=", "junit=m", "html=a/b/c"),
        "--output": ("out.txt", "/dev/full", "m", "a/b/c", "-", "/dev/null"), "--lora": ("l.json", "m", "a", "nothing.yaml", "/dev/zero", "/proc/self/mem"), "--adapter": ("a", "m", "l.json"), "--base": ("m", "a", "arch:llama"),
        "--batch": ("l.json", "m", "train.py:x", "train.py:argv", "os:getcwd", "json:loads"), "--loss": ("train.py:x", "os:_exit", "sys:exit"), "--optimizer": ("torch.optim:SGD", "builtins:dict", "builtins:int"),
        "--weights": ("random", "pretrained", "none", "all"), "--select": ("PI1", "PI999", "*", "gradient", "PI304,PI305"), "--ignore": ("PI", "", "PI3"), "--fail-on": ("note", "never", "fatal"), "--steps": ("1", "0", "-1", "1e3"),
        "--rank": ("1", "1000000", "0", "10000000000"), "--lora-alpha": ("inf", "nan", "1e400", "0"), "--width": ("1", "0", "100000", "-5"), "--depth": ("0", "1", "99", "-1"), "--color": ("always", "never"), "--columns": ("params,rank", "x"),
        "--image": ("l.json", "nothing.png"), "--audio": ("l.json", "nothing.wav"), "--text": ("hello", "x" * 5000), "--jobs": ("1", "0"), "--diff": ("m", "arch:gpt2", "nothing"), "--match": ("*q_proj*", "[", "**"), "--config": ("l.json", "nothing.toml"),
        "--task-type": ("CAUSAL_LM", "seq_cls", "X"), "--target-modules": ("q_proj,v_proj", "all-linear", "(.*)*x"), "--target-parameters": ("lm_head.weight", "self_attn.q_proj.weight"), "--modules-to-save": ("lm_head", "model"),
    }.get(option, ())  # fmt: skip
    return draw.choice((*fitting, *fitting, draw.choice((*TEXTS, *map(str, NUMBERS[:-1]), "[" * 3000, "9" * 5000))))


def _names(draw: random.Random) -> Case:
    """Whatever can stand for MODEL."""
    good = (
        "m",
        "m/config.json",
        "arch:llama",
        "arch:nothing",
        "train.py:build",
        "train:build",
        "a",
        "owner/model",
        "owner/model@main",
        "m/..",
        "./m/",
        "m/model.safetensors",
        "os:getcwd",
        "torch.nn:Linear",
        "x.json",
        "peft:PeftModel",
        "/dev/zero",
        "/proc/self/environ",
        "json:JSONDecoder",
    )
    text = draw.choice((*good, *good, *TEXTS)) + draw.choice(
        ("", "", "", "/", ":x", ".py:f", "@main", ".json", "\n", " ", "#", "?x=1", "x" * 300)
    )
    files = {
        "x.json": "{}",
        "m/config.json": written(MODELS[0]),
        "a/adapter_config.json": written({**LORA, "base_model_name_or_path": text[:4000]}),
        "train.py": "build = 3\n",
    }
    how = ("--base-class", argument(text), "a") if draw.random() < 0.1 else ("--", argument(text))
    return Case("names", (draw.choice(("tree", "check")), "--target-modules", "q_proj", *how), files)


KINDS = (_config, _lora, _adapter, _header, _trainer, _batch, _options, _names)
