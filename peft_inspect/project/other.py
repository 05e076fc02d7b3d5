"""What `--diff OTHER` stands for: the same request with another LoRA config, another adapter, or another model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from peft_inspect.records import Request

CONFIGS = frozenset({".json", ".yaml", ".yml", ".toml"})


def other_request(request: Request, other: str) -> Request:
    """The request for OTHER, judged by what lies there."""
    path = Path(other)
    if (path / "adapter_config.json").is_file() and not _is_adapter(request.model):
        return replace(request, adapter=other, lora=None, lora_fields={})
    if path.is_file() and path.suffix in CONFIGS and path.name != "config.json":
        return replace(request, lora=other, lora_fields={}, adapter=None)
    return replace(request, model=other)


def _is_adapter(model: str | None) -> bool:
    return model is not None and (Path(model) / "adapter_config.json").is_file()
