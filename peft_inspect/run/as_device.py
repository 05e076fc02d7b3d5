"""A run without weights as it would be on a GPU: who asks for one is answered, and kernels that take the place of layers are there.

Models of transformers call such a kernel where its package is installed and the model trains, and hand it the weights of the
layers that it does the work of; elsewhere they call the layers. The kernels here take and give tensors of the same shapes, and
their results depend on the same operands. Written after the signatures in mamba_ssm 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.nn import functional

from peft_inspect.records import InspectionError
from peft_inspect.reversible import patched
from peft_inspect.run import patches
from peft_inspect.walk import modules_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peft_inspect.records import Subject


def as_on_device(subject: Subject) -> AbstractContextManager[None]:
    """What has to be replaced while its model runs."""
    if subject.as_device is None:
        return nullcontext()
    kernels = ((module, name, lambda _, kernel=kernel: kernel) for module, name, kernel in _kernels_of(subject.model))
    return patched((*patches.CUDA_IS_AVAILABLE, lambda _: _yes), *kernels)


def as_if_on(device: str, subject: Subject) -> Subject:
    """The subject, to be run as on this device; its notes say what is assumed.

    Raises:
        InspectionError: it has weights, or this version of transformers asks tensors where they are, and takes its ways by that.
    """
    if subject.weights != "none":
        raise InspectionError(
            f"--as-device {device} is for models without weights: kernels are there by their shapes alone, and this model has weights. "
            "Leave one of the two out, or inspect it where the device is"
        )
    return replace(subject, as_device=device, notes=(*subject.notes, _assumed(subject.model, device)))


def _assumed(model: nn.Module, device: str) -> str:
    names = sorted({name for _, name, _ in _kernels_of(model)})
    asking = sorted({name for name in _modules_of(model) if hasattr(sys.modules[name], "is_fast_path_available")})
    if asking and not names:
        raise InspectionError(
            f"--as-device {device}: {asking[0]} chooses its kernels by the device of its tensors, which are on none here. "
            "transformers 5.16 and newer choose by what is installed; or inspect the model on a GPU"
        )
    told = f"{' and '.join(names)} in the place of layers" if names else "no kernel that would take the place of its layers"
    return (
        f"run as on {device}: torch.cuda.is_available() is True, and {told}; attention kernels take no weights, and one stands for all. "
        "What is chosen by the device of a tensor, or patched in by others, is not seen"
    )


def _kernels_of(model: nn.Module) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """The kernels that the sources of a model know by name: their module, their name in it, and what stands for them here."""
    for module in (sys.modules[name] for name in _modules_of(model)):
        for name, value in tuple(vars(module).items()):
            kernel = next((kernel for ending, kernel in _KERNELS.items() if name.endswith(ending)), None)
            if kernel is not None and callable(value):
                yield module, name, kernel


def _modules_of(model: nn.Module) -> list[str]:
    return sorted({type(part).__module__ for part in modules_of(model)} & sys.modules.keys())


def _yes() -> bool:
    return True


def _mamba_inner(
    xz: Tensor, conv1d_weight: Tensor, conv1d_bias: Tensor | None, x_proj_weight: Tensor, delta_proj_weight: Tensor,
    out_proj_weight: Tensor, out_proj_bias: Tensor | None, A: Tensor, *_: Any, D: Tensor | None = None,  # noqa: N803  # mamba's names
    delta_bias: Tensor | None = None, **__: Any,
) -> Tensor:  # fmt: skip
    """Convolution, selective scan and the projections around it, of a whole Mamba mixer behind its first projection."""
    hidden, gate = xz.chunk(2, dim=1)
    mixed = _convolved(hidden, conv1d_weight, conv1d_bias)
    rank, state = delta_proj_weight.shape[1], A.shape[1]
    steps, written, read = functional.linear(mixed, x_proj_weight).split([rank, state, state], dim=-1)  # type: ignore[no-untyped-call]
    scanned = mixed * functional.linear(steps, delta_proj_weight) * (written * read).sum(-1, keepdim=True) * gate.transpose(1, 2)
    for parameter in (A.sum(-1), D, delta_bias):
        scanned = scanned if parameter is None else scanned + parameter
    output = functional.linear(scanned.to(out_proj_weight.dtype), out_proj_weight)
    return output if out_proj_bias is None else output + out_proj_bias.to(output.dtype)


def _split_scan(
    zxbcdt: Tensor, conv1d_weight: Tensor, conv1d_bias: Tensor | None, dt_bias: Tensor, A: Tensor, D: Tensor,  # noqa: N803
    *_: Any, rmsnorm_weight: Tensor | None = None, outproj_weight: Tensor | None = None, outproj_bias: Tensor | None = None,
    headdim: int | None = None, **__: Any,
) -> Tensor:  # fmt: skip
    """The same of a Mamba-2 mixer, its norm included."""
    heads, channels = A.shape[0], conv1d_weight.shape[0]
    size = headdim or D.shape[-1]
    inner = heads * size
    gate, mixed, steps = zxbcdt[..., -heads - channels - inner :].split([inner, channels, heads], dim=-1)  # type: ignore[no-untyped-call]
    mixed = _convolved(mixed.transpose(1, 2), conv1d_weight.unsqueeze(1), conv1d_bias)
    scale = (steps + dt_bias) * A + (D if D.dim() == 1 else D.sum(-1))
    scanned = mixed[..., :inner] * scale.repeat_interleave(size, dim=-1) * mixed[..., inner:].sum(-1, keepdim=True) * gate
    scanned = scanned if rmsnorm_weight is None else scanned * rmsnorm_weight
    return scanned if outproj_weight is None else functional.linear(scanned.to(outproj_weight.dtype), outproj_weight, outproj_bias)


def _convolved(channels_first: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A causal convolution of each channel, with the channels last afterwards."""
    length, width = channels_first.shape[-1], weight.shape[-1]
    mixed = functional.conv1d(channels_first.to(weight.dtype), weight, bias, padding=width - 1, groups=weight.shape[0])
    return mixed[..., :length].transpose(1, 2)


_KERNELS: dict[str, Callable[..., Any]] = {"mamba_inner_fn": _mamba_inner, "split_conv1d_scan_combined": _split_scan}
"""By how the sources of models end the name of each."""
