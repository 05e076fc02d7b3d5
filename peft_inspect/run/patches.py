"""Everything of torch, PEFT and the threads of Python that is replaced while a model runs, and nothing else is.

Each place is an owner and the name of its attribute; `peft_inspect.reversible.patched` replaces it and puts it back. Checked on
torch 2.9 to 2.15 and PEFT 0.18 to 0.21. What only has to be seen and not changed is seen by global module hooks and torch's modes instead.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import torch
from peft import PeftModel, peft_model
from peft.config import PeftConfigMixin
from peft.tuners.tuners_utils import BaseTuner
from torch.nn.utils import clip_grad
from torch.utils import checkpoint
from transformers import PretrainedConfig, PreTrainedModel

Place = tuple[Any, str]

# Who switches gradients off, and that a line does so without effect.
NO_GRAD: Place = (torch.no_grad, "__enter__")
INFERENCE_MODE: Place = (torch.inference_mode, "__enter__")
INFERENCE_MODE_LEFT: Place = (torch.inference_mode, "__exit__")
SET_GRAD_ENABLED: Place = (torch.set_grad_enabled, "__init__")
SET_GRAD_ENABLED_AGAIN: Place = (torch.set_grad_enabled, "__enter__")
SET_GRAD_ENABLED_LEFT: Place = (torch.set_grad_enabled, "__exit__")

# How a program's own step shows itself: who clears gradients, and a gradient scaler that leaves a step out.
ZERO_GRAD: tuple[Place, ...] = ((torch.optim.Optimizer, "zero_grad"), (torch.nn.Module, "zero_grad"))
SCALER_STEP: Place = (torch.amp.GradScaler, "step")

# Who freezes a parameter, writes a config, builds an optimizer, adds or takes off an adapter, or switches activation checkpointing on,
# before anything runs.
BUILT: tuple[Place, ...] = (
    (torch.optim.Optimizer, "__init__"),
    (PeftConfigMixin, "__post_init__"),
    (PretrainedConfig, "__post_init__" if hasattr(PretrainedConfig, "__post_init__") else "__init__"),  # transformers 5, and 4
    (PeftModel, "__init__"),
    (torch.optim.lr_scheduler.LRScheduler, "__init__"),
)
WRITES: tuple[Place, ...] = tuple((torch.nn.Parameter, name) for name in ("zero_", "fill_", "copy_", "mul_", "normal_", "uniform_"))
DATA: Place = (torch.nn.Parameter, "data")
CASTS: tuple[Place, ...] = tuple((torch.nn.Module, name) for name in ("to", "half", "bfloat16", "float", "double"))
COPIED: Place = (torch.nn.Parameter, "__deepcopy__")
CLIP_GRADIENTS: Place = (clip_grad, "_clip_grads_with_norm_")  # what everybody's clip_grad_norm_ calls
ADAPTER_ADDED: Place = (BaseTuner, "inject_adapter")
TAKEN_OFF = ("unload", "merge_and_unload", "delete_adapter")
REQUIRES_GRAD: Place = (torch.nn.Parameter, "requires_grad")
REQUIRES_GRAD_CALLED: Place = (torch.nn.Parameter, "requires_grad_")
CHECKPOINTING_ENABLED: Place = (PreTrainedModel, "gradient_checkpointing_enable")

# Who compiles a module or a function.
COMPILE: Place = (torch, "compile")

# Who loads an adapter: the folder it comes from, and the keys that found a place.
LOAD_WEIGHTS: Place = (peft_model, "load_peft_weights")
LOAD_STATE_DICT: Place = (torch.nn.Module, "load_state_dict")

# Reentrant checkpointing, wherever `checkpoint` was imported to.
REENTRANT_CHECKPOINT: Place = (checkpoint, "CheckpointFunction")

# Who asks for a GPU, where a run takes the ways of one.
CUDA_IS_AVAILABLE: Place = (torch.cuda, "is_available")

# Custom autograd functions: torch shows their operands to no mode. Written in C from torch 2.14 on.
FUNCTION_APPLY: Place = (torch.autograd.Function, "apply")

# What a backward starts from, also one inside another.
BACKWARD: Place = (torch.autograd, "backward")
GRAD: Place = (torch.autograd, "grad")

# A parameter made of a tensor: no mode is told of it.
PARAMETER_NEW: Place = (torch.nn.Parameter, "__new__")

# Whoever asks a tensor for its memory can write there past all operations. (`data_ptr` is left: everybody reads it.)
MEMORY: tuple[Place, ...] = tuple((torch.Tensor, name) for name in ("numpy", "untyped_storage", "__dlpack__"))

# Who hands work to another thread, where torch's modes are not.
THREAD_START: Place = (threading.Thread, "start")
THREAD_POOLS: tuple[Place, ...] = (
    (ThreadPoolExecutor, "submit"),
    *((ThreadPool, name) for name in ("apply_async", "_map_async", "imap", "imap_unordered")),
)

PLACES: tuple[Place, ...] = (
    NO_GRAD,
    INFERENCE_MODE,
    INFERENCE_MODE_LEFT,
    SET_GRAD_ENABLED,
    SET_GRAD_ENABLED_AGAIN,
    SET_GRAD_ENABLED_LEFT,
    *ZERO_GRAD,
    SCALER_STEP,
    REQUIRES_GRAD,
    REQUIRES_GRAD_CALLED,
    CHECKPOINTING_ENABLED,
    *BUILT,
    *WRITES,
    DATA,
    *CASTS,
    COPIED,
    CLIP_GRADIENTS,
    ADAPTER_ADDED,
    COMPILE,
    LOAD_WEIGHTS,
    LOAD_STATE_DICT,
    REENTRANT_CHECKPOINT,
    CUDA_IS_AVAILABLE,
    FUNCTION_APPLY,
    BACKWARD,
    GRAD,
    PARAMETER_NEW,
    *MEMORY,
    THREAD_START,
    *THREAD_POOLS,
)

LAYER_SWITCHES = ("enable_adapters", "merge", "set_adapter")


def layer_switches(layers: Iterable[Any]) -> list[Place]:
    """The methods of PEFT that put these adapter layers into another state, in every class that has its own."""
    owners = dict.fromkeys(owner for kind in dict.fromkeys(map(type, layers)) for owner in kind.__mro__)
    return [(owner, name) for owner in owners for name in LAYER_SWITCHES if name in vars(owner)]
