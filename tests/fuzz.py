"""Give the command and the Python API thousands of inputs that mean ill, each in a process of its own under limits.

    python -m tests.fuzz --count 5000 --seed 1 [--first N] [--seconds 600] [--kind "LoRA file"]

Prints each input that went wrong, with the number that makes it again (`--only N`), and the counts; ends with 1 where one did.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub reads it

import torch
import transformers.models.llama.modeling_llama  # noqa: F401 - imported once, and not by each process

import peft_inspect
from peft_inspect.inspection import inspect
from peft_inspect.records import Request
from tests.hostile import code, grammar
from tests.hostile.worker import Case, run

KINDS = (*grammar.KINDS, *code.KINDS)


def case_of(seed: int, number: int) -> Case:
    """Input `number` of a seed: the same one each time, whatever was tried before it."""
    return KINDS[number % len(KINDS)](random.Random(f"{seed}/{number}"))


def warm() -> None:
    """Do once, and not in each process, what no input changes: import everything, fill the caches of the libraries."""
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(peft_inspect.__path__, "peft_inspect."):
        with contextlib.suppress(ImportError):  # of a library that is not installed
            importlib.import_module(module.name)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(grammar.MODELS[0]))
        str(inspect(Request(folder, lora_fields={"target_modules": "all-linear"})))
    gc.collect()
    gc.freeze()  # what is shared with the forked processes stays shared


def main() -> int:
    """Try them; 1 where something went wrong."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--count", type=int, default=5000)
    asked.add_argument("--first", type=int, default=0)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long")
    asked.add_argument("--kind", help="only inputs of these kinds, with commas")
    asked.add_argument("--only", type=int, help="one input by its number, with all that it says")
    options = asked.parse_args()
    warm()
    end = time.monotonic() + options.seconds
    tried: dict[str, Counter[str]] = {}
    seconds, wrong = 0.0, 0
    for number in range(options.first, options.first + options.count) if options.only is None else (options.only,):
        if time.monotonic() > end:
            break
        case = case_of(options.seed, number)
        if options.kind and case.kind not in options.kind.split(","):
            continue
        ending = run(case)
        problems = ending.wrong(case)
        seconds += ending.seconds
        tried.setdefault(case.kind, Counter()).update((f"exit {ending.code}", *(["wrong"] if problems else [])))
        if problems:
            wrong += 1
            print(f"{number} ({case.kind}) {case.arguments!a:.300}: {'; '.join(problems)}\n    {ending.err[-300:]!a}", flush=True)
        if options.only is not None:
            for name, content in case.files.items():
                print(f"--- {name}\n{content if isinstance(content, str) else ascii(content)}"[:5000])
            print(f"--- {case.arguments!a} ended with {ending.code}\n{ending.out[:5000]!s}\n{ending.err!s}"[:12000])
    for kind, counts in tried.items():
        print(f"{kind}: {sum(counts.values()) - counts['wrong']}, " + ", ".join(f"{name}: {n}" for name, n in sorted(counts.items())))
    print(f"{sum(sum(c.values()) - c['wrong'] for c in tried.values()):,} inputs in {seconds:.0f} s of CPU; {wrong} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
