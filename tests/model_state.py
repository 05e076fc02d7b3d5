"""Everything that an inspection has to leave as it was, read into one plain value that can be compared."""

from __future__ import annotations

import os
import random
import signal
import sys
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as modules
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from peft_inspect.run import patches

REGISTRIES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def state_of(model: nn.Module) -> dict[str, Any]:
    """The state of a model and of the process, by name: equal before and after an inspection."""
    found: dict[str, Any] = {
        "modules": [(path, id(module), type(module), module.training) for path, module in model.named_modules(remove_duplicate=False)],
        "parameters": [(path, id(parameter)) for path, parameter in model.named_parameters(remove_duplicate=False)],
        "buffers": [(path, id(buffer)) for path, buffer in model.named_buffers(remove_duplicate=False)],
    }
    for path, module in model.named_modules():
        found[f"{path}: attributes"] = [(name, _plain(value)) for name, value in vars(module).items()]
        found[f"{path}: hooks"] = [[*getattr(module, name)] for name in REGISTRIES]
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[f"{path}: tensor"] = _tensor(tensor)
        found[f"{path}: gradient"] = (id(tensor.grad) if tensor.grad is not None else None, _plain(tensor.grad))
    return {**found, **process_state()}


def process_state() -> dict[str, Any]:
    """What belongs to the process and the thread."""
    return {
        "rng": (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state(legacy=False))),  # noqa: NPY002
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "settings": (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()),
        "anomaly": (torch.is_anomaly_enabled(), torch.backends.mha.get_fastpath_enabled(), torch.get_default_device()),
        "stacks": [*map(id, _get_current_dispatch_mode_stack()), *map(id, _get_current_function_mode_stack())],
        "precision": (torch.get_float32_matmul_precision(), torch.get_autocast_dtype("cpu"), sys.getrecursionlimit()),
        "stance": getattr(getattr(sys.modules.get("torch._dynamo.eval_frame"), "_stance", None), "stance", None),
        "patches": [(str(owner), name, id(vars(owner).get(name))) for owner, name in patches.PLACES],
        "global hooks": {
            name: [*hooks] for name, hooks in vars(modules).items() if name.startswith("_global_") and isinstance(hooks, dict)
        },
        "warnings": (id(warnings.filters), list(warnings.filters), warnings.showwarning),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1)],
        "os": (os.getcwd(), dict(os.environ), id(sys.stdin), id(sys.stdout), id(sys.stderr)),  # noqa: PTH109
    }


def _tensor(tensor: torch.Tensor) -> tuple[Any, ...]:
    hooks = [[*registry] if registry else [] for registry in (tensor._backward_hooks, tensor._post_accumulate_grad_hooks)]
    where = (torch._C._storage_id(tensor), tensor.shape, tensor.stride(), tensor.dtype)
    return (type(tensor), tensor.requires_grad, tensor.is_leaf, where, hooks, tensor.detach().flatten().tolist(), [*vars(tensor)])


def _plain(value: Any) -> Any:
    """Values where they say something and identity elsewhere."""
    if isinstance(value, torch.Tensor):
        return (id(value), value.shape, value.detach().flatten().tolist())
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return str(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.ndarray):
        return (id(value), value.tolist())
    if isinstance(value, dict) and type(value) is dict:
        return (id(value), [(name, _plain(item)) for name, item in value.items()]) if not any(map(callable, value.values())) else id(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (int, float, str, bytes, type(None))) else id(value)
