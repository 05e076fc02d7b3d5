"""Nothing in which two blocks differ is folded away, and every difference is said in words."""

from dataclasses import replace
from io import StringIO

import pytest

from peft_inspect.formats.tree.drawing import write
from peft_inspect.formats.view import View
from peft_inspect.records import ModuleInfo

STACK = "base_model.model.model.layers"
Q_PROJ, NORM = f"{STACK}.1.self_attn.q_proj", f"{STACK}.1.input_layernorm"


def screen(report, **view):
    out = StringIO()
    write(report, out, View("tree", **{"width": 200, "color": False, **view}))
    return out.getvalue()


def with_changed(structure, rows, path, **fields):
    """The structure with one of its records changed."""
    return replace(structure, **{rows: tuple(replace(row, **fields) if row.path == path else row for row in getattr(structure, rows))})


@pytest.mark.parametrize(
    ("rows", "path", "fields", "said"),
    [
        ("modules", NORM, {"type": "LayerNorm"}, "input_layernorm: LayerNorm instead of LlamaRMSNorm"),
        ("modules", NORM, {"training": False}, "input_layernorm: in eval mode"),
        ("modules", NORM, {"aliases": ("elsewhere.norm",)}, "input_layernorm: also at elsewhere.norm"),
        ("parameters", f"{NORM}.weight", {"shape": (8,)}, "input_layernorm: weight 8 instead of 16"),
        ("parameters", f"{NORM}.weight", {"requires_grad": True}, "input_layernorm: weight trainable"),
        ("parameters", f"{NORM}.weight", {"dtype": "float16"}, "input_layernorm: weight float16 on cpu instead of float32 on cpu"),
        ("parameters", f"{NORM}.weight", {"device": "cuda:1"}, "input_layernorm: weight float32 on cuda:1 instead of float32 on cpu"),
        ("parameters", f"{NORM}.weight", {"quantization": "nf4"}, "input_layernorm: weight float32 on cpu in nf4 instead of"),
        ("parameters", f"{NORM}.weight", {"aliases": ("other.weight",)}, "input_layernorm: weight tied to other.weight"),
        ("parameters", f"{Q_PROJ}.base_layer.weight", {"shape": (32, 16)}, "self_attn.q_proj: weight 32×16 instead of 16×16"),
        ("parameters", f"{Q_PROJ}.lora_A.default.weight", {"dtype": "float16"}, "self_attn.q_proj.lora_A.default: weight float16 on cpu"),
        ("adapter_layers", Q_PROJ, {"tuner": "LOHA"}, "self_attn.q_proj: tuner LOHA instead of LORA"),
        ("adapter_layers", Q_PROJ, {"type": "Linear4bit"}, "self_attn.q_proj: type Linear4bit instead of Linear"),
        ("adapter_layers", Q_PROJ, {"base_type": "Conv1D"}, "self_attn.q_proj: Conv1D instead of Linear"),
        ("adapter_layers", Q_PROJ, {"scaling": 0.0}, "self_attn.q_proj: scaling 0.0 instead of 2.0"),
        ("adapter_layers", Q_PROJ, {"copy_of": "ref"}, "self_attn.q_proj: copy_of ref instead of None"),
        ("adapter_layers", Q_PROJ, {"parameter_name": "w"}, "self_attn.q_proj: with adapter default, without adapter default"),
    ],
)
def test_whatever_differs_is_said(make_llama, make_report, rows, path, fields, said):
    text = screen(make_report(with_changed(make_llama(3), rows, path, **fields)))
    assert "layers.0,2 ×2" in text
    assert f"unlike 0,2: {said}" in text


def test_a_frozen_adapter_layer_is_said_of_the_layer(make_llama, make_report):
    structure = make_llama(3)
    for factor in ("lora_A", "lora_B"):
        structure = with_changed(structure, "parameters", f"{Q_PROJ}.{factor}.default.weight", requires_grad=False)
    text = screen(make_report(structure))
    assert "unlike 0,2: self_attn.q_proj: frozen\n" in text
    assert "q_proj Linear 16×16 ◇ default r=8 α=16 fp32 frozen" in text


def test_freezing_an_adapter_is_a_change(make_llama, make_report):
    text = screen(make_report(make_llama(2)), other=make_report(make_llama(2, trainable=False)))
    assert "~ q_proj Linear 16×16 ◆ default r=8 α=16 fp32 now frozen" in text
    assert "4 changed" in text


def test_of_several_adapters_the_one_that_differs_is_named(make_llama, make_report):
    structure = make_llama(3)
    reference = tuple(replace(layer, adapter="ref", parameters=()) for layer in structure.adapter_layers)
    odd = tuple(replace(layer, r=4) if layer.path == Q_PROJ else layer for layer in reference)
    text = screen(make_report(replace(structure, adapter_layers=(*structure.adapter_layers, *odd))))
    assert "unlike 0,2: self_attn.q_proj: ref r 4 instead of 8\n" in text


def test_a_shared_block_is_said_once_for_all_that_it_holds(make_llama, make_report):
    """Its parameters and children are shared as well; that goes without saying."""
    structure, shared, again = make_llama(4), f"{STACK}.1", f"{STACK}.3"
    modules = tuple(
        replace(module, aliases=(module.path.replace(shared, again),)) if module.path.startswith(shared) else module
        for module in structure.modules
        if not module.path.startswith(again)
    )
    parameters = tuple(
        replace(parameter, aliases=(parameter.path.replace(shared, again),)) if parameter.path.startswith(shared) else parameter
        for parameter in structure.parameters
        if not parameter.path.startswith(again)
    )
    layers = tuple(layer for layer in structure.adapter_layers if not layer.path.startswith(again))
    text = screen(make_report(replace(structure, modules=modules, parameters=parameters, adapter_layers=layers)))
    assert f"unlike 0,2: also at {again}\n" in text
    assert f"layers.3 LlamaDecoderLayer = {shared}, the same object" in text


def test_what_is_equal_in_a_nested_list_is_not_drawn_again(make_llama, make_report):
    """As in T5, whose blocks hold lists of layers: only the first block has a position bias."""
    structure = make_llama(3)
    inner = [f"{STACK}.{index}.layer" for index in range(3)]
    nested = [ModuleInfo(path, "ModuleList", "container", training=True) for path in inner]
    for at, name in enumerate(("Attention", "FeedForward")):
        nested += [ModuleInfo(f"{path}.{at}", name, "other", training=True) for path in inner]
        nested += [ModuleInfo(f"{path}.{at}.drop", "Dropout", "other", training=True) for path in inner]
    nested.append(ModuleInfo(f"{inner[0]}.0.bias", "Embedding", "embedding", training=True))
    text = screen(make_report(replace(structure, modules=(*structure.modules, *nested))))
    assert "unlike 0: layer.0.bias: not here" in text
    assert text.count("layer.1 FeedForward") == 1
    assert "self_attn, mlp, input_layernorm, post_attention_layernorm, layer.1: as above" in text


def test_a_group_of_many_ranges_is_referred_to_by_the_first(make_llama, make_report):
    structure = make_llama(12)
    odd = {f"{STACK}.{index}.self_attn.q_proj" for index in (2, 5, 8)}
    rows = tuple(replace(layer, merged=True) if layer.path in odd else layer for layer in structure.adapter_layers)
    text = screen(make_report(replace(structure, adapter_layers=rows)))
    assert "layers.0–1,3–4,6–7,9–11 ×9" in text
    assert "unlike 0–1,…: self_attn.q_proj: merged\n" in text


def test_the_sign_of_an_adapter_stays_beside_its_name(make_llama, make_report):
    structure = make_llama(1)
    more = tuple(replace(layer, adapter=f"adapter_number_{number}") for number in range(3) for layer in structure.adapter_layers)
    report = make_report(replace(structure, adapter_layers=(*structure.adapter_layers, *more)))
    for width in range(50, 90):
        assert not any(line.rstrip("0123456789., ").endswith("◆") for line in screen(report, width=width).splitlines())


def test_how_a_base_layer_stores_its_weight_is_no_kind_of_adapter(make_llama, make_report):
    path = f"{STACK}.0.self_attn.q_proj"
    structure = with_changed(make_llama(1), "adapter_layers", path, details={"fan_in_fan_out": True, "use_dora": True})
    assert "q_proj Linear 16×16 ◆ default r=8 α=16 fp32 dora\n" in screen(make_report(structure), columns=())


def saved(structure, path):
    """The structure with the module at `path` in `modules_to_save`."""
    module, weight = structure.module[path], structure.parameter[f"{path}.weight"]
    copy = f"{path}.modules_to_save.default"
    made = [
        replace(module, type="ModulesToSaveWrapper", kind="container"),
        replace(module, path=f"{path}.original_module"),
        ModuleInfo(f"{path}.modules_to_save", "ModuleDict", "container", training=True),
        replace(module, path=copy),
    ]
    weights = [
        replace(weight, path=f"{path}.original_module.weight", module=f"{path}.original_module", role="original"),
        replace(weight, path=f"{copy}.weight", module=copy, role="saved", requires_grad=True),
    ]
    modules = (*(other for other in structure.modules if other is not module), *made)
    return replace(structure, modules=modules, parameters=(*(other for other in structure.parameters if other is not weight), *weights))


def test_a_module_that_gets_a_trained_copy_is_said_to_get_it(make_llama, make_report):
    """Not that a wrapper took the place of its class, nor that its weight is gone."""
    plain, norm = make_llama(1), "base_model.model.model.norm"
    with_copy = make_report(saved(plain, norm))
    assert "~ norm LlamaRMSNorm 16 now with modules_to_save of default" in screen(make_report(plain), other=with_copy)
    assert "~ norm LlamaRMSNorm 16 ◆ default modules_to_save now without modules_to_save of default" in screen(
        with_copy, other=make_report(plain)
    )
    assert "nothing changed" in screen(with_copy, other=with_copy)


def test_what_only_one_of_two_models_has_is_not_compared(make_llama, make_report):
    other = make_report(make_llama(6, targets=("q_proj", "k_proj"), ranks=lambda index: 16))
    text = screen(make_report(make_llama(4)), other=other)
    assert "+ layers.4–5 ×2 LlamaDecoderLayer" in text
    assert "unlike" not in text


def test_parameters_that_change_alike_are_named_together(make_llama, make_report):
    structure, odd = make_llama(3), f"{STACK}.1.input_layernorm"
    weight = structure.parameter[f"{odd}.weight"]
    norms = [path for path in structure.module if path.endswith("input_layernorm")]
    biases = tuple(replace(weight, path=f"{path}.bias", module=path) for path in norms)
    structure = replace(structure, parameters=(*structure.parameters, *biases))
    for name in ("weight", "bias"):
        structure = with_changed(structure, "parameters", f"{odd}.{name}", requires_grad=True)
    assert "unlike 0,2: input_layernorm: weight and bias trainable\n" in screen(make_report(structure))
