"""Train on a GPU with and without the tool, and compare: python docs/gpu_check.py [--device cuda] [WAY ...]

Prints one line per way of training: whether the losses and weights of ten steps are bit for bit the same, what was found
in a healthy and in a cut training, the peak of the memory, and how often the first step waits for the device. The last
lines check `gradcheck` on a live model: what it finds, and that weights, gradients and random numbers are as before.
"""

from __future__ import annotations

import argparse
import warnings
from contextlib import contextmanager, nullcontext

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM

import peft_inspect

STEPS = 10
WAYS = ("float32", "bfloat16", "autocast", "scaled float16", "compiled", "flash", "checkpointed", "split")
HALF = {"bfloat16": torch.bfloat16, "flash": torch.bfloat16, "checkpointed": torch.bfloat16}
DEVICES = {"split": 2}  # how many of the layers stay on the CPU


def build(way, device, *, cut):
    """A Llama of four layers with LoRA and dropout, so that random numbers matter; `cut` detaches behind its second layer."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4)
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
    model = get_peft_model(LlamaForCausalLM(config), lora, autocast_adapter_dtype=False).to(HALF.get(way, torch.float32))
    if way == "split":
        model = dispatched(model, device)
    else:
        model.to(device)
    if way == "checkpointed":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if cut:
        model.base_model.model.model.layers[1].register_forward_hook(detached)
    return model


def detached(_module, _args, hidden):
    return hidden.detach()


def dispatched(model, device):
    """The model with its first half on the CPU, as accelerate places it."""
    from accelerate import dispatch_model

    base = "base_model.model."
    places = {f"{base}model.layers.{number}": "cpu" if number < DEVICES["split"] else 0 for number in range(4)}
    places |= {f"{base}model.embed_tokens": "cpu", f"{base}model.norm": 0, f"{base}model.rotary_emb": 0, f"{base}lm_head": 0}
    return dispatch_model(model, places, main_device="cpu") if device == "cuda" else model


def train(way, device, *, watched, cut=False):
    """The losses of ten steps and the weights after them, the report, the peak of the memory in bytes, and the waits of step one."""
    model = build(way, device, cut=cut)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0, enabled=way == "scaled float16")
    half = {"autocast": torch.bfloat16, "scaled float16": torch.float16}.get(way)
    torch.compiler.reset()  # what was compiled for the model before this one does not ask whether hooks differ
    called = torch.compile(model) if way == "compiled" else model
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses, waits = [], 0
    with peft_inspect.watch(fail_on="never") if watched else nullcontext() as watching:
        for step in range(STEPS):
            ids = torch.randint(0, 512, (4, 64), generator=torch.Generator().manual_seed(step)).to(device)
            with counted_waits(device) as seen:
                with torch.autocast(device, half) if half else nullcontext(), only_flash(way, device):
                    loss = called(input_ids=ids, labels=ids).loss
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            waits = waits or len(seen)
            losses.append(loss.item())
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    weights = [p.detach().float().cpu() for p in model.parameters() if p.requires_grad]
    return losses, weights, watching.report if watched else None, peak, waits


def only_flash(way, device):
    return sdpa_kernel(SDPBackend.FLASH_ATTENTION) if way == "flash" and device == "cuda" else nullcontext()


@contextmanager
def counted_waits(device):
    """A list that afterwards holds one entry per time that the host waited for the device; it stays empty on a CPU."""
    waits = []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        yield waits
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    waits += [warning for warning in seen if "synchronizing" in str(warning.message)]


def found(report):
    return [finding.code for finding in report.findings] if report else "no step seen"


def compare(way, device):
    try:
        _compare(way, device)
    except Exception as error:  # a way that this machine cannot go is a line, not the end
        print(f"{way:15} raised {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)


def _compare(way, device):
    losses, weights, _, bare, waits = train(way, device, watched=False)
    again, moved, report, peak, watched = train(way, device, watched=True)
    same = losses == again and all(map(torch.equal, weights, moved))
    cut = train(way, device, watched=True, cut=True)[2]
    memory = f", peak {peak / bare:.3f} x, waits {waits} -> {watched}" if bare else ""
    print(f"{way:15} {'bit-identical' if same else 'NOT THE SAME'}, healthy {found(report)}, cut {found(cut)}{memory}", flush=True)
    for finding in cut.findings if cut else ():
        place = f", line {finding.source.line}" if finding.source else ""
        print(f"{'':15} {finding.code}: {finding.message}{place}", flush=True)


def live(device, *, cut):
    """`gradcheck` of a live model, and whether it left weights, gradients and random numbers as they were."""
    model = build("float32", device, cut=cut)
    ids = torch.randint(0, 512, (4, 64), device=device)
    before = state(model, device)
    report = peft_inspect.gradcheck(model, {"input_ids": ids, "labels": ids})
    same = all(map(torch.equal, before, state(model, device)))
    print(f"gradcheck {'cut' if cut else 'healthy':7} {'undisturbed' if same else 'CHANGED'}, found {found(report)}", flush=True)


def state(model, device):
    random = [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if device == "cuda" else [])
    return [p.detach().clone() for p in model.parameters()] + [p.grad for p in model.parameters() if p.grad is not None] + random


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("ways", nargs="*", default=WAYS, metavar="WAY")
    args = parser.parse_args()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    for way in args.ways:
        compare(way, args.device)
    for cut in (False, True):
        live(args.device, cut=cut)


if __name__ == "__main__":
    main()
