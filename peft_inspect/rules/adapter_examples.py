"""Adapter files for the examples of the PI4xx rules, saved by PEFT. Torch is imported only when an example runs."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_inspect.rules.examples import tiny_llama

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, Any]


def adapted(targets: tuple[str, ...] = ("q_proj", "v_proj"), *, r: int = 8, trained: bool = True, **fields: Any) -> Any:
    """A tiny Llama with LoRA on `targets`; `trained` gives its weights values as after some steps. `fields` are of the model's config."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(**fields), LoraConfig(r=r, target_modules=list(targets)))
    return as_trained(model) if trained else model


def as_trained(model: torch.nn.Module) -> Any:
    """The model with small values in every factor that starts at zero."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    return model


def saved(model: Any, edit: Callable[[Tensors], Tensors] | None = None) -> str:
    """The folder of the model's adapter, as `save_pretrained` writes it; `edit` changes its tensors. It lasts as long as the process."""
    from safetensors.torch import load_file, save_file

    folder = Path(tempfile.mkdtemp(prefix="peft-inspect-example-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model.save_pretrained(str(folder))
    if edit is not None:
        file = folder / "adapter_model.safetensors"
        save_file(dict(edit(load_file(file))), file)
    return str(folder)


def merged(model: Any, *, applied: bool = True) -> tuple[str, str]:
    """Folders of the model with its adapter merged into it, or left out, and of its base. They last as long as the process."""
    import copy

    folders = [tempfile.mkdtemp(prefix="peft-inspect-example-") for _ in range(2)]
    for folder in folders:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    base = copy.deepcopy(model).unload()
    base.save_pretrained(folders[1])
    (copy.deepcopy(model).merge_and_unload() if applied else base).save_pretrained(folders[0])
    return folders[0], folders[1]
