"""The fault zoo: every bypass and gradient fault, one at a time, in a tiny Llama and in a tiny LLaVA.

    python docs/fault_zoo.py            # write docs/fault-zoo.md
    python docs/fault_zoo.py --check    # exit 1 where the page has drifted

A fault is injected the way it comes about: a forward that bypasses a layer, a switch, a config. In the Llama it sits
in the MLP of every block, in the LLaVA in the MLP of every block of the vision tower; faults of a whole model are the
same in both.
"""

from __future__ import annotations

import copy
import re
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

import peft_inspect
from peft_inspect.rules import Example, all_rules

PAGE = Path(__file__).with_name("fault-zoo.md")
IMAGE, IGNORED = 39, -100
Forward = Callable[[Any, torch.Tensor], torch.Tensor]


# --- the two models ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """A model to inject faults into: how it is built, and where its MLPs are."""

    name: str
    base: Callable[[], Any]
    batch: Callable[[], dict[str, torch.Tensor]]
    tower: str  # path of the tower that gets the fault, in the base model
    stack: str  # path of its blocks
    hidden: Forward  # what the MLP computes before its last layer
    last: str  # name of that last layer
    before: tuple[str, ...]  # names of the layers before it


def text_config() -> LlamaConfig:
    """Two blocks of width 16."""
    return LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )


def llava() -> LlavaForConditionalGeneration:
    """A CLIP tower of two blocks, all of which reach the projector, and a Llama."""
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4)
    config = LlavaConfig(vision_config=vision, text_config=text_config(), image_token_id=IMAGE, vision_feature_layer=-1)
    return LlavaForConditionalGeneration(config)


def text_batch() -> dict[str, torch.Tensor]:
    """Six tokens and their labels."""
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    return {"input_ids": ids, "labels": ids.clone()}


def image_batch() -> dict[str, torch.Tensor]:
    """One image of four patches and two tokens."""
    ids = torch.tensor([[1, IMAGE, IMAGE, IMAGE, IMAGE, 5, 6]])
    return {"input_ids": ids, "pixel_values": torch.rand(1, 3, 8, 8), "labels": ids.masked_fill(ids == IMAGE, IGNORED)}


HOSTS = (
    Host(
        "Llama",
        lambda: LlamaForCausalLM(text_config()),
        text_batch,
        "model",
        "model.layers",
        lambda mlp, x: mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x),
        "down_proj",
        ("gate_proj", "up_proj"),
    ),
    Host(
        "LLaVA",
        llava,
        image_batch,
        "model.vision_tower",
        "model.vision_tower.encoder.layers",
        lambda mlp, x: mlp.activation_fn(mlp.fc1(x)),
        "fc2",
        ("fc1",),
    ),
)


# --- the faults -------------------------------------------------------------------------------


@dataclass
class Case:
    """One injection in progress; what a fault may change before and after the wrapping."""

    host: Host
    base: Any
    lora: dict[str, Any] = field(default_factory=lambda: {"r": 2, "target_modules": "all-linear"})
    wrapping: dict[str, Any] = field(default_factory=dict)
    after: Callable[[Any], None] = lambda _: None
    batch: dict[str, Any] = field(default_factory=dict)
    loss: Callable[[Any, Any], torch.Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None

    @property
    def mlps(self) -> list[Any]:
        """The MLPs of the stack that gets the fault."""
        return [block.mlp for block in self.base.get_submodule(self.host.stack)]

    def forward(self, make: Callable[[Any], Forward]) -> None:
        """Give every MLP the forward that `make` makes for it, as a class of its own would."""
        for mlp in self.mlps:
            mlp.__class__ = type(type(mlp).__name__, (type(mlp),), {"forward": make(mlp)})

    def last(self, mlp: Any) -> Any:
        """The last layer of an MLP, as it is now."""
        return getattr(mlp, self.host.last)


@dataclass(frozen=True)
class Fault:
    """A fault, the rule that names it, and the layers it kills."""

    code: str
    title: str
    inject: Callable[[Case], None]
    layers: str = "all"  # the adapter layers that the finding is about: a key of `EXPECTED`
    line: bool = False  # a line of code is the cause: the one marked `# <- CODE`
    provable: bool = False  # the fix can be applied in memory


FAULTS: list[Fault] = []


def fault(code: str, title: str, **expected: Any) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Register an injection."""

    def register(inject: Callable[[Case], None]) -> Callable[[Case], None]:
        FAULTS.append(Fault(code, title, inject, **expected))
        return inject

    return register


@fault("PI201", "the MLP multiplies by the weight of its last layer", layers="last", line=True, provable=True)
def weight_used(case: Case) -> None:
    def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
        return F.linear(case.host.hidden(mlp, x), case.last(mlp).weight, case.last(mlp).bias)  # <- PI201

    case.forward(lambda _: forward)


@fault("PI202", "the last layer is kept from before the wrapping and called", layers="last", line=True, provable=True)
def base_layer_kept(case: Case) -> None:
    def make(mlp: Any) -> Forward:
        kept = case.last(mlp)

        def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
            return kept(case.host.hidden(mlp, x))  # <- PI202

        return forward

    case.forward(make)


@fault("PI203", "a deep copy of the last layer, taken before the wrapping, is called", layers="last", line=True, provable=True)
def copied(case: Case) -> None:
    twins = {mlp: copy.deepcopy(case.last(mlp)) for mlp in case.mlps}

    def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
        return mlp.twin(case.host.hidden(mlp, x))  # <- PI203

    def keep(_: Any) -> None:
        for mlp, twin in twins.items():
            mlp.twin = twin

    case.forward(lambda _: forward)
    case.after = keep


@fault("PI204", "the last layer was absorbed into a constant before the wrapping", layers="last")
def absorbed(case: Case) -> None:
    def make(mlp: Any) -> Forward:
        constant = (case.last(mlp).weight.detach() * 1.5).T.contiguous()

        def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
            return case.host.hidden(mlp, x) @ constant

        return forward

    case.forward(make)


@fault("PI205", "disable_adapter_layers() for a reference pass, never enabled again", provable=True)
def disabled(case: Case) -> None:
    case.after = lambda model: model.base_model.disable_adapter_layers()


@fault("PI206", "merge_adapter() for rollouts, never unmerged", provable=True)
def merged(case: Case) -> None:
    case.after = lambda model: model.merge_adapter()


@fault("PI207", "a second adapter was added and not made active", provable=True)
def not_active(case: Case) -> None:
    def add(model: Any) -> None:
        model.add_adapter("second", LoraConfig(**case.lora))
        model.base_model.set_requires_grad("second", requires_grad=True)

    case.after = add


@fault("PI208", "the batch does not run the branch: a last block cut off, a vision tower without an image", layers="branch")
def not_executed(case: Case) -> None:
    if "pixel_values" in case.batch:
        case.batch = text_batch()
    else:
        case.base.config.num_hidden_layers = 1


@fault("PI209", "on a GPU the MLP would use the raw weight", layers="last", line=True)
def read_in_source(case: Case) -> None:
    def llama(self: Any, x: torch.Tensor) -> torch.Tensor:
        hidden = case.host.hidden(self, x)
        if x.is_cuda:
            return F.linear(hidden, self.down_proj.weight)  # <- PI209
        return self.down_proj(hidden)

    def clip(self: Any, x: torch.Tensor) -> torch.Tensor:
        hidden = case.host.hidden(self, x)
        if x.is_cuda:
            return F.linear(hidden, self.fc2.weight)  # <- PI209
        return self.fc2(hidden)

    case.forward(lambda _: llama if case.host.last == "down_proj" else clip)


@fault("PI301", "inference_mode=True, copied from a saved adapter_config.json", provable=True)
def inference_mode(case: Case) -> None:
    case.lora["inference_mode"] = True


@fault("PI302", "a freeze loop over all parameters after the wrapping", provable=True)
def frozen(case: Case) -> None:
    case.after = lambda model: model.requires_grad_(requires_grad=False)


@fault("PI303", "the MLP runs under no_grad", layers="mlp", line=True, provable=True)
def no_grad(case: Case) -> None:
    def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():  # <- PI303
            return case.last(mlp)(case.host.hidden(mlp, x))

    case.forward(lambda _: forward)


@fault("PI304", "reentrant checkpointing, and no input of a block requires grad", layers="tower", provable=True)
def reentrant(case: Case) -> None:
    def checkpoint(_: Any) -> None:
        tower = case.base.get_submodule(case.host.tower)
        tower.gradient_checkpointing_enable({"use_reentrant": True})
        tower.disable_input_require_grads()

    case.after = checkpoint


@fault("PI305", "the hidden state of the MLP is detached", layers="before", line=True, provable=True)
def detached(case: Case) -> None:
    def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
        return case.last(mlp)(case.host.hidden(mlp, x).detach())  # <- PI305

    case.forward(lambda _: forward)


@fault("PI306", "the hidden state of the MLP is rounded", layers="before", line=True)
def rounded(case: Case) -> None:
    def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
        return case.last(mlp)(torch.round(case.host.hidden(mlp, x) * 64) / 64)  # <- PI306

    case.forward(lambda _: forward)


@fault("PI307", "the loss is made anew from its number", line=True)
def rebuilt_loss(case: Case) -> None:
    def loss(model: Any, batch: Any) -> torch.Tensor:
        return torch.tensor(model(**batch).loss.item(), requires_grad=True)  # <- PI307

    case.loss = loss


@fault("PI308", "the output of the MLP is computed and thrown away", layers="mlp")
def unused(case: Case) -> None:
    def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
        case.last(mlp)(case.host.hidden(mlp, x))
        return torch.zeros_like(x)

    case.forward(lambda _: forward)


class Forgetful(torch.autograd.Function):
    """Returns no gradient."""

    @staticmethod
    def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, *_grad: Any) -> None:
        return None  # <- PI309


@fault("PI309", "an autograd function of one's own returns no gradient", layers="before", line=True)
def forgotten(case: Case) -> None:
    def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
        return case.last(mlp)(Forgetful.apply(case.host.hidden(mlp, x)))

    case.forward(lambda _: forward)


@fault("PI310", "the loss has a weight of zero")
def zero_loss(case: Case) -> None:
    case.loss = lambda model, batch: model(**batch).loss * 0.0


@fault("PI311", "lora_alpha=0", provable=True)
def zero_scaling(case: Case) -> None:
    case.lora["lora_alpha"] = 0


@fault("PI312", "weights restored as zeros", provable=True)
def zeros(case: Case) -> None:
    def restore(model: Any) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.zero_()

    case.after = restore


@fault("PI313", "every label is the ignore index", provable=True)
def no_labels(case: Case) -> None:
    case.batch["labels"] = torch.full_like(case.batch["labels"], IGNORED)


@fault("PI314", "float16 adapters and a tiny loss without a scaler", provable=True)
def underflow(case: Case) -> None:
    case.base.half()
    case.batch = {name: value.half() if value.is_floating_point() else value for name, value in case.batch.items()}
    case.wrapping["autocast_adapter_dtype"] = False
    case.loss = lambda model, batch: model(**batch).loss.float() * 1e-9


@fault("PI315", "the MLP takes a logarithm of zero", layers="first MLP")
def nonfinite(case: Case) -> None:
    def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
        return case.last(mlp)(case.host.hidden(mlp, x)) + torch.log(x - x)

    case.forward(lambda _: forward)


@fault("PI316", "base weights unfrozen after the wrapping", layers="norms")
def unfrozen(case: Case) -> None:
    def unfreeze(model: Any) -> None:
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.requires_grad = True

    case.after = unfreeze


@fault("PI317", "the optimizer was built before the wrapping")
def early_optimizer(case: Case) -> None:
    case.optimizer = torch.optim.AdamW(case.base.parameters())


@fault("PI318", "a fresh adapter is distilled from its own base")
def own_teacher(case: Case) -> None:
    def loss(model: Any, batch: Any) -> torch.Tensor:
        with torch.no_grad(), model.disable_adapter():
            teacher = model(**batch).logits
        return (model(**batch).logits - teacher).square().mean()

    case.loss = loss


@fault("PI319", "a forward for plain LoRA on layers with DoRA", layers="last")
def without_magnitude(case: Case) -> None:
    case.lora["use_dora"] = True

    def plain(layer: Any, x: torch.Tensor) -> torch.Tensor:
        return layer.base_layer(x) + layer.scaling["default"] * layer.lora_B["default"](layer.lora_A["default"](x))

    def put(_: Any) -> None:
        for mlp in case.mlps:
            case.last(mlp).forward = types.MethodType(plain, case.last(mlp))

    case.after = put


@fault("PI320", "a batch without labels", layers="none")
def no_loss(case: Case) -> None:
    del case.batch["labels"]


# --- what the tool says -----------------------------------------------------------------------


def patterns(host: Host) -> dict[str, str]:
    """Which layers each word of `Fault.layers` stands for, as patterns for their paths."""
    stack = rf"base_model\.model\.{host.stack}"
    idle = rf"{stack}\.1\..*" if host.name == "Llama" else r".*(vision_tower|multi_modal_projector)\..*"
    return {
        "all": ".*",
        "last": rf"{stack}\.\d\.mlp\.{host.last}",
        "before": rf"{stack}\.\d\.mlp\.({'|'.join(host.before)})",
        "mlp": rf"{stack}\.\d\.mlp\..*",
        "tower": rf"{stack}\..*",
        "branch": idle,
        "norms": r".*norm.*",
        "none": "",
    }


@dataclass(frozen=True)
class Verdict:
    """What the tool said about one fault in one model; None where there is nothing to give."""

    findings: tuple[str, ...]
    flagged: bool
    named: bool
    line: bool | None
    verified: bool | None


def program(host: Host, inject: Callable[[Case], None] = lambda _: None) -> Example:
    """The model with one fault, or with none."""
    torch.manual_seed(0)
    case = Case(host, host.base().train(), batch=host.batch())
    inject(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of some of the faults itself
        model = get_peft_model(case.base, LoraConfig(**case.lora), **case.wrapping)
        case.after(model)
    return Example(model, case.batch, case.loss, case.optimizer)


def inspect(example: Example) -> peft_inspect.Report:
    """Every bypass and gradient rule over one program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has its own to say about some of the faults
        return peft_inspect.check(example.model, example.batch, loss=example.loss, optimizer=example.optimizer, select=("PI2", "PI3"))


def verdict(fault: Fault, host: Host) -> Verdict:
    """Inject the fault, inspect the model, and compare what is said with what was done."""
    report = inspect(program(host, fault.inject))
    codes = tuple(found.code for found in report.findings)
    found = report.findings[0] if codes == (fault.code,) else None
    at_line = found is not None and found.source is not None and found.source.line in marked_lines(fault.code)
    return Verdict(
        codes,
        flagged=bool(codes),
        named=found is not None and _names_layers(found, fault, host, report),
        line=at_line if fault.line else None,
        verified=found is not None and found.fix_verified is True if fault.provable else None,
    )


def _names_layers(found: peft_inspect.Finding, fault: Fault, host: Host, report: peft_inspect.Report) -> bool:
    """Whether a finding is about exactly the layers that got the fault."""
    if fault.layers == "first MLP":
        return str(found.facts["first_module"]).endswith(f"{host.stack}.0.mlp")
    rows = report.structure.modules if fault.layers == "norms" else report.structure.adapter_layers
    return set(found.modules) == {row.path for row in rows if re.fullmatch(patterns(host)[fault.layers], row.path)}


def marked_lines(code: str) -> set[int]:
    """The lines of this file that carry the marker of the fault: one, or one for each model."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith(f"# <- {code}")}


# --- the page ---------------------------------------------------------------------------------

HEAD = """# The fault zoo

Every bypass and gradient fault, injected one at a time into a tiny Llama and into a tiny LLaVA (there into the vision
tower). *Flagged*: the tool found a fault. *Named*: exactly one finding, of the right rule, about exactly the layers
that got the fault. *Line*: it gives the line of code that is the cause. *Fix proved*: it applied the fix in memory, ran the model
again, and gradients arrived. A dash: no line of code is the cause, or the fix is a change of the program that cannot be made in
memory. Written by `python docs/fault_zoo.py`; `tests/test_zoo.py` holds every cell.

"""
COLUMNS = ("flagged", "named", "line", "verified")


def word(value: bool | None) -> str:
    """A cell of the table."""
    return "–" if value is None else "yes" if value else "**no**"


def page(judge: Callable[[Fault, Host], Verdict] = verdict) -> str:
    """docs/fault-zoo.md as it should read: a row for every fault, the columns once for each model."""
    names = {rule.code: rule.name for rule in all_rules()}
    lines = [
        "| fault | rule | "
        + " | ".join(f"{host.name}: {column}" for host in HOSTS for column in ("flagged", "named", "line", "fix proved"))
        + " |",
        "|---|---|" + "---|" * (len(HOSTS) * len(COLUMNS)),
    ]
    for each in FAULTS:
        verdicts = [judge(each, host) for host in HOSTS]
        cells = [word(getattr(of_host, column)) for of_host in verdicts for column in COLUMNS]
        lines.append(f"| {each.title} | {each.code} {names[each.code]} | " + " | ".join(cells) + " |")
    silence = ["**yes**" if inspect(program(host)).findings else "no" for host in HOSTS]
    lines.append("| none: the same model, healthy | – | " + " | ".join(f"{flagged} | – | – | –" for flagged in silence) + " |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or say that it has drifted."""
    text = page()
    if "--check" in sys.argv:
        drifted = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text
        print(f"{PAGE.name} has drifted: run python docs/fault_zoo.py" if drifted else f"{PAGE.name} is what the tool says")
        return int(drifted)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
