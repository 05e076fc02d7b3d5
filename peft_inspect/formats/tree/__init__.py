"""The wrapper hierarchy as a tree: from records to rows, from rows to a screen."""
