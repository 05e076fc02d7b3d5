"""Train on a GPU with and without the tool, and compare: python docs/gpu_check.py [--device cuda]

Prints one line per way of training: whether losses and weights are bit for bit the same, what was found, and the peak of the memory.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import peft_inspect

STEPS = 10
WAYS = ("float32", "bfloat16", "autocast", "scaled float16", "compiled")


def build(way, device):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4)
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(target_modules=["q_proj", "v_proj"]), autocast_adapter_dtype=False)
    return model.to(device, torch.bfloat16 if way == "bfloat16" else torch.float32)


def train(way, device, *, watched):
    """The losses of ten steps and the weights after them, the report, and the peak of the memory in bytes."""
    model = build(way, device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0, enabled=way == "scaled float16")
    half = {"autocast": torch.bfloat16, "scaled float16": torch.float16}.get(way)
    called = torch.compile(model) if way == "compiled" else model
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses = []
    with peft_inspect.watch(fail_on="never") if watched else nullcontext() as watching:
        for step in range(STEPS):
            ids = torch.randint(0, 512, (4, 64), generator=torch.Generator().manual_seed(step)).to(device)
            with torch.autocast(device, half) if half else nullcontext():
                loss = called(input_ids=ids, labels=ids).loss
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            losses.append(loss.item())
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    weights = [p.detach().float().cpu() for p in model.parameters() if p.requires_grad]
    return losses, weights, watching.report if watched else None, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("ways", nargs="*", default=WAYS, metavar="WAY")
    args = parser.parse_args()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    for way in args.ways:
        losses, weights, _, bare = train(way, args.device, watched=False)
        again, moved, report, peak = train(way, args.device, watched=True)
        same = losses == again and all(map(torch.equal, weights, moved))
        codes = [finding.code for finding in report.findings] if report else "no step seen"
        memory = f", peak {peak / bare:.2f} x" if bare else ""
        print(f"{way:15} {'bit-identical' if same else 'NOT THE SAME'}, found {codes}{memory}")


if __name__ == "__main__":
    main()
