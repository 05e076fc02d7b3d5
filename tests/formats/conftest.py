"""Hand-made records: models as functions, so that a format can be asked without torch."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pytest

from peft_inspect.api import Report
from peft_inspect.records import (
    AdapterInfo,
    AdapterLayerInfo,
    BatchInfo,
    BlockStack,
    CallInfo,
    ConfigEntry,
    Finding,
    GradientInfo,
    LossInfo,
    ModuleInfo,
    Outcome,
    ParameterInfo,
    Severity,
    Source,
    Structure,
    Tower,
    Trace,
)


@dataclass
class Rows:
    """Collects the rows of a structure, as an observer would."""

    modules: list = field(default_factory=list)
    parameters: list = field(default_factory=list)
    layers: list = field(default_factory=list)

    def module(self, path, name, kind="other", **fields):
        self.modules.append(ModuleInfo(path, name, kind, **{"training": True, **fields}))

    def weight(self, module, shape, *, name="weight", role="base", requires_grad=False, **fields):
        numel = 1
        for size in shape:
            numel *= size
        path = f"{module}.{name}"
        self.parameters.append(ParameterInfo(path, module, shape, "float32", "cpu", requires_grad, role, numel=numel, **fields))
        return path

    def linear(self, path, fan_in, fan_out):
        self.module(path, "Linear", "linear")
        self.weight(path, (fan_out, fan_in))

    def lora(self, path, fan_in, fan_out, r=8, *, adapters=("default",), trainable=True, **fields):
        self.module(path, "Linear", "adapter-layer")
        self.linear(f"{path}.base_layer", fan_in, fan_out)
        self.module(f"{path}.lora_A", "ModuleDict", "container")
        self.module(f"{path}.lora_B", "ModuleDict", "container")
        for adapter in adapters:
            weights = []
            for factor, shape in (("lora_A", (r, fan_in)), ("lora_B", (fan_out, r))):
                self.module(f"{path}.{factor}.{adapter}", "Linear", "linear")
                weights.append(self.weight(f"{path}.{factor}.{adapter}", shape, role="adapter", adapter=adapter, requires_grad=trainable))
            row = AdapterLayerInfo(
                path,
                adapter,
                "LORA",
                "Linear",
                "Linear",
                f"{path}.base_layer",
                r,
                2 * r,
                2.0,
                active=True,
                merged=False,
                enabled=True,
                parameters=tuple(weights),
            )
            self.layers.append(replace(row, **fields))


def llama_structure(
    layers: int = 4,
    *,
    width: int = 16,
    targets: Iterable[str] = ("q_proj", "v_proj"),
    ranks: Callable[[int], int] = lambda index: 8,
    trainable: bool = True,
    **fields,
) -> Structure:
    """A Llama in a PeftModel, `ranks` gives the rank of each block."""
    rows = Rows()
    base = "base_model.model"
    rows.module("", "PeftModelForCausalLM", "peft-model")
    rows.module("base_model", "LoraModel", "tuner")
    rows.module(base, "LlamaForCausalLM", "container")
    rows.module(f"{base}.model", "LlamaModel", "container")
    rows.module(f"{base}.model.embed_tokens", "Embedding", "embedding")
    rows.weight(f"{base}.model.embed_tokens", (64, width), aliases=(f"{base}.lm_head.weight",))
    rows.module(f"{base}.model.layers", "ModuleList", "container")
    for index in range(layers):
        block = f"{base}.model.layers.{index}"
        rows.module(block, "LlamaDecoderLayer", "container")
        rows.module(f"{block}.self_attn", "LlamaAttention", "container")
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            if name in targets:
                rows.lora(f"{block}.self_attn.{name}", width, width, ranks(index), trainable=trainable)
            else:
                rows.linear(f"{block}.self_attn.{name}", width, width)
        rows.module(f"{block}.mlp", "LlamaMLP", "container")
        for name, (fan_in, fan_out) in {
            "gate_proj": (width, 2 * width),
            "up_proj": (width, 2 * width),
            "down_proj": (2 * width, width),
        }.items():
            rows.linear(f"{block}.mlp.{name}", fan_in, fan_out)
        rows.module(f"{block}.mlp.act_fn", "SiLU")
        for name in ("input_layernorm", "post_attention_layernorm"):
            rows.module(f"{block}.{name}", "LlamaRMSNorm", "norm")
            rows.weight(f"{block}.{name}", (width,))
    rows.module(f"{base}.model.norm", "LlamaRMSNorm", "norm")
    rows.weight(f"{base}.model.norm", (width,))
    rows.module(f"{base}.lm_head", "Linear", "linear")
    attention = tuple(f"{base}.model.layers.{index}.self_attn" for index in range(layers))
    asked = tuple(
        ConfigEntry("target_modules", name, tuple(f"{path}.{name}" for path in attention), by_tower={f"{base}.model": layers})
        for name in targets
    )
    adapter = AdapterInfo("default", "", "LORA", {"r": 8, "lora_alpha": 16}, active=True, inference_mode=False, targets=asked)
    stack = BlockStack(f"{base}.model.layers", tuple(range(layers)), ("LlamaDecoderLayer",) * layers)
    structure = Structure(
        root_type="PeftModelForCausalLM",
        base_type="LlamaForCausalLM",
        modules=tuple(rows.modules),
        parameters=tuple(rows.parameters),
        adapters=(adapter,),
        adapter_layers=tuple(rows.layers),
        towers=(Tower(f"{base}.model", "LlamaModel", (stack,)),),
    )
    return replace(structure, **fields)


def experts_structure(layers: int, experts: int, width: int = 16, **fields) -> Structure:
    """A mixture of experts in a PeftModel, with an adapter on each Linear of each expert."""
    rows = Rows()
    rows.module("", "PeftModel", "peft-model")
    rows.module("base_model", "LoraModel", "tuner")
    rows.module("base_model.model", "SparseModel", "container")
    stack = "base_model.model.blocks"
    rows.module(stack, "ModuleList", "container")
    for block in (f"{stack}.{index}" for index in range(layers)):
        rows.module(block, "SparseBlock", "container")
        rows.linear(f"{block}.router", width, experts)
        rows.module(f"{block}.experts", "ModuleList", "container")
        for expert in (f"{block}.experts.{index}" for index in range(experts)):
            rows.module(expert, "Expert", "container")
            rows.lora(f"{expert}.w1", width, width)
            rows.lora(f"{expert}.w2", width, width)
    adapter = AdapterInfo("default", "", "LORA", {"r": 8, "lora_alpha": 16}, active=True, inference_mode=False)
    structure = Structure(
        root_type="PeftModel",
        base_type="SparseModel",
        modules=tuple(rows.modules),
        parameters=tuple(rows.parameters),
        adapters=(adapter,),
        adapter_layers=tuple(rows.layers),
        towers=(Tower("base_model.model", "SparseModel", (BlockStack(stack, tuple(range(layers)), ("SparseBlock",) * layers),)),),
    )
    return replace(structure, **fields)


def traced(structure: Structure, state: str = "ok", *, loss: float | None = 4.16, norm: float | None = 0.25) -> Trace:
    """A run in which every adapter parameter got `state`."""
    gradients = tuple(
        GradientInfo(path, layer.path, layer.adapter, state, norm if state == "ok" else None)
        for layer in structure.adapter_layers
        for path in layer.parameters
    )
    calls = tuple(
        CallInfo(
            order,
            layer.path,
            None,
            "forward",
            None,
            enabled=True,
            merged=False,
            active=("default",),
            input_requires_grad=True,
            output_requires_grad=True,
        )
        for order, layer in enumerate(structure.adapter_layers)
    )
    batch = BatchInfo(
        {"input_ids": "int64[1, 8]", "labels": "int64[1, 8]"},
        ("input_ids", "labels"),
        "made from the signature and config",
        labels=8,
        supervised=8,
    )
    return Trace(structure, batch, LossInfo(loss, has_graph=True), gradients, calls)


REENTRANT = Finding(
    "PI304",
    "reentrant-checkpoint-without-grad-input",
    Severity.ERROR,
    "reentrant checkpointing ran 8 adapter layers without gradients: none of the inputs of the blocks requires grad",
    modules=tuple(f"base_model.model.model.layers.{index}.self_attn.{name}" for index in range(4) for name in ("q_proj", "v_proj")),
    source=Source("train.py", 54, "forward", "    hidden = self.tower(x)"),
    facts={"use_reentrant": True, "blocks": frozenset({"b", "a"})},
    fix="pass use_reentrant=False",
    fix_verified=True,
    verified="16/16 parameters train with use_reentrant=False",
)


def report_of(
    structure: Structure, trace: Trace | None = None, findings: Iterable[Finding] = (), outcomes: Iterable[Outcome] | None = None
) -> Report:
    """A report as the API would hand it over."""
    findings = tuple(findings)
    if outcomes is None:
        found = dict.fromkeys((finding.code, finding.rule) for finding in findings)
        outcomes = [*(Outcome(*rule, "found") for rule in found), Outcome("PI112", "no-adapter", "clean")]
    return Report(
        "train.py:build_model", structure, trace, findings, tuple(outcomes), timings={"load_s": 1.0, "trace_s": 0.5, "total_s": 1.5}
    )


@pytest.fixture
def make_llama():
    return llama_structure


@pytest.fixture
def make_experts():
    return experts_structure


@pytest.fixture
def make_trace():
    return traced


@pytest.fixture
def make_report():
    return report_of


@pytest.fixture
def reentrant():
    return REENTRANT


@pytest.fixture
def broken_report():
    """Four blocks, no gradient anywhere, and the cause found."""
    structure = llama_structure()
    skipped = Outcome("PI310", "zero-gradient", "skipped", "needs values: run with --weights random or pretrained")
    return report_of(
        structure,
        traced(structure, "none"),
        [REENTRANT],
        [Outcome("PI112", "no-adapter", "clean"), Outcome("PI304", REENTRANT.rule, "found"), skipped],
    )


@pytest.fixture
def healthy_report():
    structure = llama_structure()
    return report_of(structure, traced(structure))


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "browser: opens the HTML report in headless Chromium (apt-get install chromium chromium-driver; pip install selenium)"
    )
