"""A row as a program of its own: torchrun --nproc_per_node 2 -m peft_inspect run tests/distributed/row.py fsdp2 one"""

import sys
from pathlib import Path

import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))

from runtimes import ROWS

if __name__ == "__main__":
    row, fault = sys.argv[1:]
    dist.init_process_group("gloo")
    training = ROWS[row](fault)
    for number in range(3):
        training.step(number)
    dist.destroy_process_group()
