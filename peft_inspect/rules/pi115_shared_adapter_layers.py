"""Two PeftModels over one backbone object: both steer the same LoRA weights.

An actor and a critic, or a policy and its reference, built by two calls of `get_peft_model` on one base
are two views of one set of adapter layers: activating, disabling or merging in one does it in the other.

Give each its own base model, or use one PeftModel with two adapters and `set_adapter`.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, ModuleInfo, Origin, Severity, Structure, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted, quoted


def check(structure: Structure) -> Iterator[Finding]:
    """Adapter layers that lie in more than one PeftModel, by the PeftModels they lie in."""
    models = {path: module.path for module in structure.modules if module.kind == "peft-model" for path in (module.path, *module.aliases)}
    if len(set(models.values())) < 2:
        return
    shared: dict[frozenset[str], list[str]] = {}
    for path in modules_of(structure.adapter_layers):
        around = frozenset(_innermost(path, models) for path in _paths(structure.module[path])) - {None}
        if len(around) > 1:
            shared.setdefault(frozenset(str(model) for model in around), []).append(path)
    for around, paths in shared.items():
        yield RULE.finding(
            f"{len(around)} PeftModels, {quoted(sorted(around))}, share {counted(len(paths), 'adapter layer')}: they wrap one base "
            "model object",
            paths,
            facts={"peft_models": sorted(around), "layers": len(paths)},
            origin=Origin("wrapped"),
            fix="give each PeftModel a base model of its own, or use one PeftModel with two adapters and set_adapter",
        )


def _paths(module: ModuleInfo) -> tuple[str, ...]:
    return (module.path, *module.aliases)


def _innermost(path: str, models: dict[str, str]) -> str | None:
    """The PeftModel around a path, as its canonical path."""
    around = [known for known in models if not known or path.startswith(f"{known}.")]
    return models[max(around, key=len)] if around else None


def _pair(*, shared: bool) -> Example:
    import torch
    from peft import LoraConfig, get_peft_model

    class ActorCritic(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            base = tiny_llama()
            config = LoraConfig(target_modules=["q_proj", "v_proj"])
            self.actor = get_peft_model(base, config)
            self.critic = get_peft_model(base if shared else tiny_llama(), config)

        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.actor(input_ids, labels=labels).loss + self.critic(input_ids, labels=labels).loss

    return Example(ActorCritic(), text_batch())


def broken() -> Example:
    """An actor and a critic over one base model."""
    return _pair(shared=True)


def fixed() -> Example:
    """Each has its own."""
    return _pair(shared=False)


RULE = Rule("PI115", "shared-adapter-layers", Severity.ERROR, over=Structure, check=check, broken=broken, fixed=fixed)
