"""The wrapper hierarchy as a tree: from records to rows, from rows to a screen."""

from peft_inspect.formats.tree.drawing import ModelTree, write

__all__ = ["ModelTree", "write"]
