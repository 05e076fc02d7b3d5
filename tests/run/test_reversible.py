"""What is set up is put back, whatever is raised at whatever moment, and what was raised goes on its way."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from peft_inspect.reversible import Reversible, handlers, hooked, patched, put_back_after, set_handlers


class Switch(Reversible[str]):
    """Sets `owner.on`, in steps between which a signal or an exception can come."""

    def __init__(self, owner: SimpleNamespace, during: str = "", signals: int = 1) -> None:
        self.owner, self.during, self.signals = owner, during, signals

    def _interrupted(self, now: str) -> None:
        for _ in range(self.signals if now == self.during else 0):
            signal.raise_signal(signal.SIGINT)

    def set_up(self) -> str:
        self.owner.half = True
        self._interrupted("setting up")
        self.owner.on = True
        return "on"

    def put_back(self) -> None:
        self.owner.half = False
        self._interrupted("putting back")
        self.owner.on = False
        self.owner.undone += 1


@pytest.fixture
def owner() -> SimpleNamespace:
    return SimpleNamespace(on=False, half=False, undone=0)


def test_it_is_on_inside_and_off_afterwards(owner) -> None:
    with Switch(owner) as given:
        assert (given, owner.on) == ("on", True)
    assert (owner.on, owner.half, owner.undone) == (False, False, 1)


@pytest.mark.parametrize("during", ["setting up", "putting back"])
@pytest.mark.parametrize("signals", [1, 3])
def test_ctrl_c_in_between_is_raised_when_everything_is_put_back(owner, during: str, signals: int) -> None:
    with pytest.raises(KeyboardInterrupt), Switch(owner, during, signals):
        assert during == "putting back", "an interrupt while it was set up must not reach the body"
    assert (owner.on, owner.half, owner.undone) == (False, False, 1), "putting back was not cut in two"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_of_other_signals_wait_as_well(owner) -> None:
    seen: list[tuple[int, bool]] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append((number, owner.half)))
    try:

        class Signalled(Switch):
            def _interrupted(self, now: str) -> None:
                signal.raise_signal(signal.SIGUSR1)

        with Signalled(owner):
            assert seen == [(signal.SIGUSR1, True)]  # after the setting up, in which it came
        assert seen == [(signal.SIGUSR1, True), (signal.SIGUSR1, False)]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_handlers_are_told_as_they_are_where_nothing_is_held_back(owner) -> None:
    class Looking(Switch):
        def _interrupted(self, now: str) -> None:
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
            assert handlers()[signal.SIGINT] is signal.default_int_handler
            if now == "putting back":
                set_handlers({signal.SIGINT: int(signal.SIG_IGN)})

    with Looking(owner):
        pass
    try:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Late(BaseException):
    """What another thread raises in this one."""


def _raise_here(thread: int) -> None:
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Late)) == 1


def test_an_exception_of_another_thread_is_raised_when_everything_is_put_back(owner) -> None:
    class Disturbed(Switch):
        times = 0

        def _interrupted(self, now: str) -> None:
            if now == "putting back" and self.times < 3:
                self.times += 1
                _raise_here(threading.get_ident())
                for _ in range(100):
                    time.sleep(0)

    with pytest.raises(Late), Disturbed(owner):
        pass
    assert (owner.on, owner.half) == (False, False)


def test_it_works_outside_the_main_thread(owner) -> None:
    caught: list[type[BaseException]] = []

    def run() -> None:
        try:
            with Switch(owner):
                _raise_here(threading.get_ident())
                for _ in range(100):
                    time.sleep(0)
        except Late as error:
            caught.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert caught == [Late]
    assert (owner.on, owner.undone) == (False, 1)


def test_a_context_that_was_missed_is_left_with_the_one_around_it(owner) -> None:
    inner = Switch(owner)
    with Switch(SimpleNamespace(on=False, half=False, undone=0)):
        inner.__enter__()
    assert not owner.on
    inner.__exit__()
    assert owner.undone == 1, "left once"


def test_at_the_outermost_end_nothing_is_left_open(owner) -> None:
    with pytest.raises(ValueError, match="in the middle"):
        put_back_after(lambda: (Switch(owner).__enter__(), int("in the middle")))
    assert not owner.on


def test_an_error_of_its_own_is_raised_and_keeps_nothing_else_open(owner) -> None:
    class Broken(Reversible[None]):
        def set_up(self) -> None:
            """Nothing."""

        def put_back(self) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Switch(owner), Broken():
        pass
    assert not owner.on


def test_attributes_are_put_back_as_their_owner_stored_them() -> None:
    class Base:
        def inherited(self) -> str:
            return "base"

    class Owner(Base):
        @classmethod
        def own(cls) -> str:
            return "own"

    stored = vars(Owner)["own"]
    with patched((Owner, "own", lambda _: "replaced"), (Owner, "inherited", lambda original: lambda self: original(self) + "!")):
        assert (Owner.own, Owner().inherited()) == ("replaced", "base!")
    assert vars(Owner)["own"] is stored
    assert "inherited" not in vars(Owner)


def test_attributes_replaced_before_one_that_is_missing_are_put_back() -> None:
    owner = SimpleNamespace(there=1)
    with pytest.raises(AttributeError), patched((owner, "there", lambda _: 2), (owner, "missing", lambda _: 2)):
        pass
    assert vars(owner) == {"there": 1}


def test_hooks_are_there_inside_only() -> None:
    registered: list[str] = []

    def register(name: str) -> SimpleNamespace:
        registered.append(name)
        return SimpleNamespace(remove=lambda: registered.remove(name) if name in registered else None)

    with hooked(lambda: register("one"), lambda: register("two")):
        assert registered == ["one", "two"]
    assert registered == []
