"""What belongs to the process or the thread and not to the model: settings, random number generators, global hooks, modes.

Not kept, because nothing lists them or nothing can undo them: files, sockets, threads and processes that a forward starts, log
levels, settings of other libraries, variables of modules, and what a program keeps in C.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch.nn.modules import module as modules

from peft_inspect.internals import COMPILER, SET_STANCE, STANCE, find
from peft_inspect.reversible import handlers, set_handlers

Restore = Callable[[], None]


class Setting(NamedTuple):
    """One setting. What `read` gives is compared by `==` and handed to `write` where it has changed.

    `needs` are the internals that both rely on.
    """

    read: Callable[[], Any]
    write: Callable[[Any], None]
    needs: tuple[str, ...] = ()


def kept_process() -> Iterator[Restore]:
    """Read everything, and give what puts each back."""
    yield from (_kept(setting) for setting in _SETTINGS if all(find(name) is not None for name in setting.needs))
    yield from (_kept_dict(hooks) for name, hooks in vars(modules).items() if name.startswith("_global_") and isinstance(hooks, dict))
    yield _kept_filters()
    yield from _kept_generators()


def _kept(setting: Setting) -> Restore:
    before = setting.read()

    def restore() -> None:
        if setting.read() != before:
            setting.write(before)

    return restore


def _kept_dict(registry: dict[Any, Any]) -> Restore:
    before = dict(registry)

    def restore() -> None:
        if list(registry) != list(before):
            registry.clear()
            registry.update(before)

    return restore


def _kept_filters() -> Restore:
    """`catch_warnings` puts another list in the place of the filters, and its end may have been missed."""
    filters, before, show = warnings.filters, list(warnings.filters), warnings.showwarning

    def restore() -> None:
        warnings.filters, warnings.showwarning = filters, show
        if filters != before:
            warnings.resetwarnings()
            filters[:] = before  # type: ignore[index]

    return restore


def _kept_generators() -> Iterator[Restore]:
    """The random number generators that everybody shares."""
    torch_state = torch.get_rng_state()
    yield lambda: torch.set_rng_state(torch_state)
    for device in (torch.cuda, torch.xpu):
        if device.is_available():
            yield _kept_device(device)
    if torch.backends.mps.is_available():
        state = torch.mps.get_rng_state()
        yield lambda: torch.mps.set_rng_state(state)
    python_state = random.getstate()
    yield lambda: random.setstate(python_state)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy_state = numpy.random.get_state()
        yield lambda: numpy.random.set_state(numpy_state)


def _kept_device(device: Any) -> Restore:
    states = device.get_rng_state_all()
    return lambda: device.set_rng_state_all(states)


def _threaded(read: Callable[[], Any], write: Callable[[Any], None]) -> Setting:
    """A setting that only the main thread may change."""

    def write_in_main(value: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            write(value)

    return Setting(read, write_in_main)


def _directory() -> str | None:
    """The working directory; None for one that is gone."""
    try:
        return os.getcwd()  # noqa: PTH109 - as the program wrote it
    except OSError:
        return None


def _change_directory(directory: str | None) -> None:
    if directory is not None:
        with suppress(OSError):  # it may be gone by now
            os.chdir(directory)


def _set_environment(variables: dict[str, str]) -> None:
    for name in [name for name in os.environ if name not in variables]:
        del os.environ[name]
    os.environ.update({name: value for name, value in variables.items() if os.environ.get(name) != value})


def _streams() -> tuple[Any, ...]:
    return sys.stdin, sys.stdout, sys.stderr


def _set_streams(streams: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


def _default_device() -> tuple[Any, Any]:
    return getattr(find("device_context"), "device_context", None), find("device_module").CURRENT_DEVICE


def _set_default_device(kept: tuple[Any, Any]) -> None:
    find("device_context").device_context, find("device_module").CURRENT_DEVICE = kept


def _function_modes() -> list[Any]:
    return list(find("get_function_modes")())


def _set_function_modes(kept: list[Any]) -> None:
    while _function_modes():
        find("pop_function_mode")()
    for mode in kept:
        find("push_function_mode")(mode)


def _dispatch_modes() -> tuple[list[Any], dict[str, Any]]:
    """The modes that see every operation, and what torch notes beside them."""
    noted = vars(find("dispatch_module"))
    flags = {name: value for name, value in noted.items() if isinstance(value, bool) and name.startswith("_is_in_")}
    return find("get_dispatch_modes")(), flags


def _set_dispatch_modes(kept: tuple[list[Any], dict[str, Any]]) -> None:
    stack, flags = kept
    module = find("dispatch_module")
    while len(find("get_dispatch_modes")()) > len(stack):
        find("pop_dispatch_mode")()
    for mode in stack[len(find("get_dispatch_modes")()) :]:
        find("push_dispatch_mode")(mode)
    vars(module).update(flags)
    tell_compiler = find("tell_compiler_of_modes")
    if tell_compiler is not None:
        tell_compiler(flags.get("_is_in_any_mode_without_ignore_compile_internals", False))


def _stance() -> Any:
    """How compiled code runs; None as long as the compiler is not imported."""
    return getattr(sys.modules.get(COMPILER), STANCE, None)


def _set_stance(stance: Any) -> None:
    if stance is not None:
        getattr(sys.modules[COMPILER], SET_STANCE)(stance)


def _autocast(device: str) -> Setting:
    def write(kept: tuple[bool, Any]) -> None:
        torch.set_autocast_enabled(device, kept[0])
        torch.set_autocast_dtype(device, kept[1])

    return Setting(lambda: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)), write)


def _attribute(owner: Any, name: str) -> Setting:
    return Setting(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _scaled_attention() -> tuple[bool, ...]:
    """Which kernels of `scaled_dot_product_attention` may be used."""
    kernels: Any = torch.backends.cuda
    return kernels.flash_sdp_enabled(), kernels.mem_efficient_sdp_enabled(), kernels.math_sdp_enabled(), kernels.cudnn_sdp_enabled()


def _set_scaled_attention(kept: tuple[bool, ...]) -> None:
    kernels: Any = torch.backends.cuda
    for enable, value in zip(
        (kernels.enable_flash_sdp, kernels.enable_mem_efficient_sdp, kernels.enable_math_sdp, kernels.enable_cudnn_sdp), kept, strict=True
    ):
        enable(value)


_DISPATCH_MODES = ("dispatch_module", "get_dispatch_modes", "pop_dispatch_mode", "push_dispatch_mode")
_SETTINGS = (
    Setting(_dispatch_modes, _set_dispatch_modes, _DISPATCH_MODES),  # first: what is put back after them is seen by no mode of a run
    Setting(_default_device, _set_default_device, ("device_context", "device_module")),
    Setting(_function_modes, _set_function_modes, ("get_function_modes", "pop_function_mode", "push_function_mode")),
    Setting(_stance, _set_stance),
    Setting(torch.get_default_dtype, torch.set_default_dtype),
    _autocast("cpu"),
    _autocast("cuda"),
    Setting(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    Setting(lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()), lambda kept: torch.set_anomaly_enabled(*kept)),
    Setting(torch.get_num_threads, torch.set_num_threads),
    Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Setting(torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    Setting(_scaled_attention, _set_scaled_attention),
    _attribute(torch.backends.cudnn, "enabled"),
    _attribute(torch.backends.cudnn, "benchmark"),
    _attribute(torch.backends.cudnn, "deterministic"),
    _threaded(handlers, set_handlers),
    Setting(_directory, _change_directory),
    Setting(os.environ.copy, _set_environment),
    Setting(_streams, _set_streams),
    Setting(sys.getrecursionlimit, sys.setrecursionlimit),
)
