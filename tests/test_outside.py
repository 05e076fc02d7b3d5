"""Exceptions of a signal's handler or of another thread are told from those of the code that they come out of."""

from __future__ import annotations

import ctypes
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import peft_inspect
from peft_inspect.outside import from_outside


class Late(Exception):
    """A time limit of the user's."""


def ring(*_: object) -> None:
    raise Late("too late")


class Bell:
    def __call__(self, *_: object) -> None:
        raise Late("too late")

    def ring(self, *_: object) -> None:
        raise Late("too late")


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def raised(run: Callable[[], object]) -> BaseException:
    try:
        run()
    except Exception as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("handler", [ring, Bell(), Bell().ring, functools.partial(ring, 1)])
def test_what_a_handler_raises_is_from_outside(handler: Any) -> None:
    signal.signal(signal.SIGALRM, handler)
    assert from_outside(raised(lambda: signal.raise_signal(signal.SIGALRM)))
    assert not from_outside(raised([].pop))


def test_what_another_thread_sets_is_from_outside() -> None:
    main = threading.get_ident()

    def set_it() -> None:
        time.sleep(0.05)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(Late))

    def wait() -> None:
        threading.Thread(target=set_it).start()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            pass

    assert from_outside(raised(wait))


@pytest.mark.parametrize(
    "fault",
    [
        lambda: 1 / 0,
        lambda: next(iter(())),
        lambda: {}["x"],
        lambda: torch.ones(2) @ torch.ones(3),
        lambda: int("x"),
        lambda: nn.Linear(2, 2)(1),
    ],
)
def test_what_code_raises_is_its_own(fault: Callable[[], object]) -> None:
    assert not from_outside(raised(fault))


class Slow(nn.Linear):
    """Its forward takes longer than its user allows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            pass
        return super().forward(x)


@pytest.mark.parametrize("inspect", [peft_inspect.check, peft_inspect.gradcheck])
def test_a_time_limit_of_the_users_goes_on_its_way(inspect: Callable[..., object]) -> None:
    signal.signal(signal.SIGALRM, ring)
    model = Slow(2, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(Late, match="too late"):
        inspect(model, {"x": torch.ones(1, 2)})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_the_forward_itself_raises_is_said() -> None:
    with pytest.raises(peft_inspect.InspectionError, match="the forward raised"):
        peft_inspect.check(nn.Linear(2, 2), {"input": torch.ones(1, 3)})
