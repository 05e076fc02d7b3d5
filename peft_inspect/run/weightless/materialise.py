"""Turn a model that was built on the meta device into one that runs: weightless floats, real integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.internals import INIT_WEIGHTS, PARAMETER_MARK, require
from peft_inspect.run.weightless.tensor import Weightless, make

if TYPE_CHECKING:
    from torch import Tensor, nn


def materialise(model: nn.Module) -> None:
    """Replace every meta tensor of a model, in place: floats by weightless tensors, integers and booleans by real values.

    Ties, `requires_grad`, registrations and attributes of the tensors stay. Integers that a constructor computed and
    the meta device lost (position ids, causal masks, relative position tables) are computed again by the model's own
    initialisation, which transformers needs for the same reason.

    Raises:
        MissingInternalError: this torch has no tensors without storage.
    """
    for name in ("make_wrapper", "disabled_torch_function", "share_storage"):
        require(name)
    _Materialiser().materialise(model)


class _Materialiser:
    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, Tensor]] = {}  # by the id of the meta tensor, which is kept so that its id stays its own
        self._recompute: list[nn.Module] = []

    def materialise(self, model: nn.Module) -> None:
        for module in model.modules():
            self._registered(module._parameters)
            if self._registered(module._buffers):
                self._recompute.append(module)
            self._attributes(vars(module))
        if self._recompute:
            initialise = _initialiser(model)
            for module in self._recompute:
                initialise(module)

    def _registered(self, tensors: dict[str, Any]) -> bool:
        """Whether integers were among them, whose values have to be computed."""
        integral = False
        for name, tensor in tensors.items():
            if tensor is not None and tensor.is_meta:
                tensors[name] = self._materialised(tensor, name)
                integral = integral or not isinstance(tensors[name], Weightless)
        return integral

    def _attributes(self, attributes: dict[str, Any]) -> None:
        for name, value in attributes.items():
            if isinstance(value, torch.Tensor) and value.is_meta:
                attributes[name] = self._materialised(value, name)

    def _materialised(self, tensor: Tensor, name: str) -> Tensor:
        known = self._known.get(id(tensor))
        if known is None:
            known = self._known[id(tensor)] = (tensor, _replacement(tensor, name))
        return known[1]


def _replacement(tensor: Tensor, name: str) -> Tensor:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return _plausible(tensor, name)
    made = make(tensor.shape, tensor.stride(), tensor.dtype, requires_grad=tensor.requires_grad)
    made.__dict__.update(tensor.__dict__)
    if isinstance(tensor, torch.nn.Parameter):
        setattr(made, PARAMETER_MARK, True)
    return made


def _plausible(tensor: Tensor, name: str) -> Tensor:
    """Values for integers that nobody computes again: positions count up, masks are causal, the rest is zero."""
    shape = tensor.shape
    if tensor.dtype is torch.bool:
        square = tensor.dim() >= 2 and shape[-1] == shape[-2]
        return torch.ones(shape, dtype=torch.bool).tril() if square else torch.ones(shape, dtype=torch.bool)
    if "position" in name and tensor.dim() >= 1:
        return torch.arange(shape[-1], dtype=tensor.dtype).expand(shape).contiguous()
    return torch.zeros(shape, dtype=tensor.dtype)


def _initialiser(model: nn.Module) -> Any:
    """`_init_weights` of the innermost transformers model that holds a module; does nothing for others."""
    owners: dict[int, Any] = {}
    for module in model.modules():  # outer models come first, so inner ones win
        if hasattr(module, INIT_WEIGHTS):
            owners.update(dict.fromkeys(map(id, module.modules()), module))

    def initialise(module: nn.Module) -> None:
        owner = owners.get(id(module))
        if owner is not None:
            with torch.no_grad():
                getattr(owner, INIT_WEIGHTS)(module)

    return initialise
