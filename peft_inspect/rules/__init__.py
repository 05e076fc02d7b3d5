"""One file, one diagnosis. Every module named `piNNN_*` of this package is found here and nowhere else listed."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from peft_inspect.rules.rule import NO_VALUES, Example, Rule

__all__ = ["NO_VALUES", "Example", "Rule", "all_rules", "page"]


@cache
def all_rules() -> tuple[Rule[Any], ...]:
    """Every rule, by code."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name.startswith("pi"))
    return tuple(importlib.import_module(f"{__name__}.{name}").RULE for name in names)


def page(rule: Rule[Any]) -> str:
    """The docstring of the rule's module: first line the title, then why it matters and what to do."""
    return (importlib.import_module(rule.check.__module__).__doc__ or "").strip()
