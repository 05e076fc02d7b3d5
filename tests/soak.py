"""Interrupt inspections at random moments, and compare the model and the process with what they were.

    python -m tests.soak [SECONDS] [SEED]

A process of its own, because what it tests can damage one. Three ways to interrupt: Ctrl-C, another signal whose handler raises,
and an exception that another thread sets. Prints the counts; ends with 1 where anything has changed.
"""

from __future__ import annotations

import ctypes
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import peft_inspect
from tests.model_state import state_of
from tests.test_put_back import Changing, arrays, generators, objects, reordered, shared_generators, slots, tuples

KINDS = ("ctrl-c", "signal", "thread")


class Alarm(BaseException):
    """What the handler of the other signal raises."""


class Late(BaseException):
    """What another thread raises in the inspecting one."""


def _ring(*_: object) -> None:
    raise Alarm


def noisy() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A model that changes whatever it can, with gradients of a step before."""
    torch.manual_seed(0)
    wrapped: Any = get_peft_model(Changing(), LoraConfig(r=2, target_modules=["first", "second"], modules_to_save=["head"]))
    actions = (reordered, slots, objects, arrays, tuples, generators, shared_generators)
    wrapped.get_base_model().action = lambda model: [action(model) for action in actions]
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    return wrapped, {"x": torch.randn(2, 4)}


def interrupted(inspect: Callable[[], object], kind: str, delay: float) -> str:
    """Run one inspection that is interrupted after `delay` seconds; how it ended."""
    done = threading.Event()
    main = threading.get_ident()

    def from_thread() -> None:
        if not done.wait(delay):
            if kind == "thread":
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(Late))
            else:
                signal.pthread_kill(main, signal.SIGINT if kind == "ctrl-c" else signal.SIGUSR1)

    helper = threading.Thread(target=from_thread)
    ended = "in time"
    try:
        helper.start()
        inspect()
    except (KeyboardInterrupt, Alarm, Late) as error:
        ended = type(error).__name__
    except peft_inspect.InspectionError as error:
        ended = f"said: {error}"
    finally:
        done.set()
        helper.join()
    return ended


def soak(seconds: float, seed: int) -> tuple[Counter[str], list[str]]:
    """How the inspections ended, and what had changed after them."""
    draw = random.Random(seed)
    signal.signal(signal.SIGUSR1, _ring)
    wrapped, batch = noisy()
    peft_inspect.check(wrapped, batch)
    started = time.perf_counter()
    peft_inspect.check(wrapped, batch)
    usual = time.perf_counter() - started
    before = state_of(wrapped)
    ends: Counter[str] = Counter()
    damage: list[str] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        kind = draw.choice(KINDS)
        try:
            ended = interrupted(lambda: peft_inspect.check(wrapped, batch), kind, draw.uniform(0, usual * 1.1))
        except (KeyboardInterrupt, Alarm, Late) as error:  # after the end of the inspection
            ended = f"{type(error).__name__} too late"
        ends[f"{kind}: {ended}"] += 1
        after = state_of(wrapped)
        if changed := [name for name in before if before[name] != after[name]]:
            damage.append(f"{kind}, {ended}: {', '.join(changed[:5])}")
            before = after
    return ends, damage


if __name__ == "__main__":
    counts, changed = soak(float(sys.argv[1]) if len(sys.argv) > 1 else 20, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for how, count in sorted(counts.items()):
        print(f"{count:5} {how}")
    print(f"{len(changed)} of {counts.total()} changed something", *changed[:20], sep="\n")
    sys.exit(bool(changed))
