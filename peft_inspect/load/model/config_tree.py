"""A model's config and the configs nested in it."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PretrainedConfig


def parts(config: PretrainedConfig) -> Iterator[tuple[str, PretrainedConfig]]:
    """The config and every config nested in it, outermost first, each object once, with its dotted prefix ("text_config.")."""
    seen: set[int] = set()

    def walk(part: PretrainedConfig, prefix: str) -> Iterator[tuple[str, PretrainedConfig]]:
        if id(part) in seen:
            return
        seen.add(id(part))
        yield prefix, part
        for name, value in list(vars(part).items()):
            if isinstance(value, PretrainedConfig):
                yield from walk(value, f"{prefix}{name}.")

    yield from walk(config, "")
