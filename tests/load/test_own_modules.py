"""Modules of the user's own that nothing which walks a model expects."""

from __future__ import annotations

import pytest

from peft_inspect.inspection import inspect
from peft_inspect.records import InspectionError, Request


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("m = nn.Sequential(nn.Linear(4, 4)); m._modules['me'] = m; return m", "returned a Sequential that holds itself"),
        ("return nn.Sequential(nn.LazyLinear(4))", "0.weight is lazy and has no shape yet"),
        ("m = nn.Sequential(nn.Linear(4, 4)); m[0]._modules['up'] = m; return m", "holds itself, directly or in its modules: '0.up'"),
        ("return nn.Linear.__new__(nn.Linear)", "is not finished: the __init__ of Linear has not called super"),
        ("m = nn.Linear(4, 4); m._buffers['odd'] = 'text'; return m", "whose tensor 'odd' is a str"),
        ("m = nn.Linear(4, 4); m._modules['odd'] = 'text'; return m", "whose module 'odd' is a str"),
        ("return type('Equal', (nn.Linear,), {'__hash__': None})(4, 4)", "Equal defines __eq__ without __hash__"),
    ],
)
def test_what_is_no_tree_of_modules_with_shapes_is_said(tmp_path, monkeypatch, body, said):
    (tmp_path / "own_model.py").write_text(f"from torch import nn\n\n\ndef build():\n    {body}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InspectionError, match=said):
        inspect(Request(model="own_model.py:build"), "tree")
