"""Give the command thousands of inputs that mean it ill, each in a process of its own under limits, and say what no run may do.

    python -m tests.fuzz --count 5000 --seed 1 [--seconds 600]

Prints the counts and each input that went wrong, with the number that makes it again (`--only N`); ends with 1 where there is one.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections import Counter

import torch
import transformers.models.llama.modeling_llama  # noqa: F401 - imported once, and not by each process

import peft_inspect.cli
import peft_inspect.inspection  # noqa: F401 - as above
from tests.hostile.grammar import KINDS
from tests.hostile.worker import Case, run


def case_of(seed: int, number: int) -> Case:
    """Input `number` of a seed: the same one each time, whatever was tried before it."""
    return KINDS[number % len(KINDS)](random.Random(f"{seed}/{number}"))


def main() -> int:
    """Try them; 1 where something went wrong."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--count", type=int, default=5000)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long")
    asked.add_argument("--only", type=int, help="one input by its number, with all that it says")
    options = asked.parse_args()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what is shared with the forked processes stays shared
    end = time.monotonic() + options.seconds
    tried, codes, wrong = Counter[str](), Counter[int](), 0
    for number in range(options.count) if options.only is None else (options.only,):
        if time.monotonic() > end:
            break
        case = case_of(options.seed, number)
        ending = run(case)
        tried[case.kind] += 1
        codes[ending.code] += 1
        if problems := ending.wrong(case):
            wrong += 1
            print(f"{number} ({case.kind}) {case.arguments!a:.300}: {'; '.join(problems)}\n    {ending.err[-300:]!a}", flush=True)
        if options.only is not None:
            print(ascii(case), ascii(ending))
    print(f"{tried.total():,} inputs: {dict(tried)}; exit codes {dict(sorted(codes.items()))}; {wrong} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
