"""A training program as people launch it: torchrun --nproc_per_node 2 -m peft_inspect run tests/distributed/program.py one"""

import argparse
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaModel


class Classifier(nn.Module):
    def __init__(self, blind):
        super().__init__()
        torch.manual_seed(0)
        base = LlamaModel(
            LlamaConfig(
                vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
            )
        )
        self.tower = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"]))
        self.head = nn.Linear(16, 4)
        self.blind = blind

    def forward(self, input_ids):
        with torch.set_grad_enabled(not self.blind):  # <- cause
            hidden = self.tower(input_ids=input_ids).last_hidden_state
        return self.head(hidden.mean(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("fault", choices=["none", "everywhere", "one", "breaks"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = Classifier(args.fault == "everywhere" or (args.fault == "one" and rank == 1))
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.01)
    losses = []
    for step in range(10):
        if args.fault == "breaks" and rank == 1 and step == 0:
            sys.modules["peft_inspect.program.roots"].read_structure = None  # as if the watching had a fault of its own
        generator = torch.Generator().manual_seed(10 * step + rank)
        logits = wrapped(torch.randint(4, 64, (2, 6), generator=generator))
        loss = nn.functional.cross_entropy(logits, torch.randint(0, 4, (2,), generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if args.out:
        (args.out / f"{rank}.txt").write_text(str(losses))
    dist.barrier()
    # gloo's thread takes the interpreter's lock to let go of the barrier: a group that is destroyed meanwhile holds it and waits for ever
    time.sleep(1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
