"""What this tool uses of torch, transformers, PEFT and huggingface_hub that they promise nobody: here, and nowhere else.

Each name says what happens where a release has it no longer. `find` is for those with another way, slower or less exact;
for the others `require`, and the import from here by name, raise `MissingInternalError`: the rules that need it are skipped with
its message. The registries of `nn.Module` are read everywhere as they are: every checkpoint and every hook relies on them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from torch._C import DisableTorchFunction
    from torch._ops import OpOverload, OpOverloadPacket
    from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "ACTIVE",
    "CHECKED",
    "COMPILER",
    "DISABLED",
    "FROM_CONFIG",
    "INIT_WEIGHTS",
    "INTERNALS",
    "ORIGINAL",
    "PARAMETER_MARK",
    "REGISTRIES",
    "SET_STANCE",
    "STANCE",
    "DisableTorchFunction",
    "Internal",
    "MissingInternalError",
    "OpOverload",
    "OpOverloadPacket",
    "TorchDispatchMode",
    "find",
    "require",
]

CHECKED = {"torch": "2.9.1–2.15.0", "transformers": "4.57.6–5.24.0", "peft": "0.18.1–0.21.2", "huggingface_hub": "0.36.2–2.4.0"}
"""The releases in which every name was found, but for those that came later; `python tests/matrix.py` checks them again."""

REGISTRIES = (
    *("_parameters", "_buffers", "_modules"),
    *("_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks"),
)
"""What an `nn.Module` registers, by the attributes that hold it; tensors have hooks under the same name as well."""


DISABLED, ACTIVE = "_disable_adapters", "_active_adapter"
"""Attributes of PEFT's adapter layers: whether they are switched off, and the names of the active adapters."""
PARAMETER_MARK = "_is_param"
"""What makes `isinstance(…, nn.Parameter)` true of a tensor subclass that carries it."""

FROM_CONFIG, INIT_WEIGHTS = "_from_config", "_init_weights"
"""Methods of transformers' models: one from a config, and the values that a module starts from."""
COMPILER, STANCE, SET_STANCE, ORIGINAL = "torch._dynamo.eval_frame", "_stance", "_set_stance", "_orig_mod"
"""Where torch.compile keeps how compiled code runs, looked at only once something has imported it; and what a compiled module compiles."""


@dataclass(frozen=True)
class Internal:
    """One name.

    `path` is dotted; with `attribute`, what is used is the attribute of that name of any object such as the one there.
    `since` is the first release that has it, where that is not the oldest that was checked.
    """

    path: str
    without: str  # what happens where it is missing
    since: str = ""
    attribute: bool = False

    @property
    def library(self) -> str:
        """The package it belongs to."""
        return self.path.partition(".")[0]


_NOTHING_RUNS = "nothing is run without weights"
_NOTHING_IS_WATCHED = "no run is watched"
_NO_PROGRAM = "a program's own step is not watched"
_MODES = "modes that a run leaves behind are not taken off"
_STACKS = f"{_MODES}, and {_NO_PROGRAM}"
_NOT_IN_PLACE = "an operation that changes the shape of its operand in place stops a run without weights"

INTERNALS = {
    # Watching a run
    "TorchDispatchMode": Internal("torch.utils._python_dispatch.TorchDispatchMode", _NOTHING_IS_WATCHED),
    "OpOverload": Internal("torch._ops.OpOverload", _NOTHING_IS_WATCHED),
    "DisableTorchFunction": Internal("torch._C.DisableTorchFunction", _NOTHING_IS_WATCHED),
    "OpOverloadPacket": Internal("torch._ops.OpOverloadPacket", _NOTHING_IS_WATCHED),
    "schema_of": Internal("torch.ops.aten.add.Tensor._schema", _NOTHING_IS_WATCHED, attribute=True),
    "storage_id": Internal("torch._C._storage_id", "the storage itself is asked, which takes longer"),
    "is_functorch_wrapped_tensor": Internal("torch._C._functorch.is_functorch_wrapped_tensor", "weights inside torch.func are not known"),
    "get_unwrapped": Internal("torch._C._functorch.get_unwrapped", "weights inside torch.func are not known"),
    "sparse_values": Internal("torch.Tensor._values", "weights in sparse tensors are not known by their storage"),
    "base_of": Internal("torch.Tensor._base", "what is written into a view is not followed into what it views", attribute=True),
    "hooks_after_accumulation": Internal("torch.Tensor._post_accumulate_grad_hooks", _NOTHING_IS_WATCHED, attribute=True),
    "set_grad_enabled": Internal("torch._C._set_grad_enabled", "the public switch is used, which a run watches"),
    "get_function_modes": Internal("torch.overrides._get_current_function_mode_stack", _MODES),
    "pop_function_mode": Internal("torch.overrides._pop_mode", _STACKS),
    "push_function_mode": Internal("torch.overrides._push_mode", _STACKS),
    "dispatch_module": Internal("torch.utils._python_dispatch", _MODES),
    "get_dispatch_modes": Internal("torch.utils._python_dispatch._get_current_dispatch_mode_stack", _MODES),
    "pop_dispatch_mode": Internal("torch.utils._python_dispatch._pop_mode", _STACKS),
    "push_dispatch_mode": Internal("torch.utils._python_dispatch._push_mode", _STACKS),
    "tell_compiler_of_modes": Internal(
        "torch._C._dynamo.guards.set_is_in_mode_without_ignore_compile_internals",
        "the compiler is not told that a mode which a run left behind is gone",
        since="2.13",
    ),
    "device_context": Internal("torch._GLOBAL_DEVICE_CONTEXT", "a default device that a run sets is not put back"),
    "device_module": Internal("torch.utils._device", "a default device that a run sets is not put back"),
    "default_store": Internal(
        "torch.distributed.distributed_c10d._get_default_store", "several processes come to no verdict together, and are not inspected"
    ),
    "version_of": Internal("torch.Tensor._version", "steps of a program are not watched", attribute=True),
    "global_forward_hooks": Internal("torch.nn.modules.module._global_forward_hooks", "operations in PEFT's own layers are watched too"),
    "global_forward_pre_hooks": Internal(
        "torch.nn.modules.module._global_forward_pre_hooks", "operations in PEFT's own layers are watched too"
    ),
    "foreach_norm": Internal("torch._foreach_norm", "gradients are measured one by one"),
    "call_impl": Internal("torch.nn.Module._call_impl", "the first step of a module that compiles itself is not told from others"),
    "flop_registry": Internal("torch.utils.flop_counter.flop_registry", "of multiply-adds only those of attention are counted"),
    "dispatch_modes": Internal("torch._C._len_torch_dispatch_stack", _NO_PROGRAM),
    "function_modes": Internal("torch._C._len_torch_function_stack", _NO_PROGRAM),
    "DeviceContext": Internal("torch.utils._device.DeviceContext", _NO_PROGRAM),
    # Running without weights
    "make_wrapper": Internal("torch.Tensor._make_wrapper_subclass", _NOTHING_RUNS),
    "disabled_torch_function": Internal("torch._C._disabled_torch_function_impl", _NOTHING_RUNS),
    "share_storage": Internal("torch._functionalize_unsafe_set", _NOTHING_RUNS),
    "DisableTorchDispatch": Internal("torch._C._DisableTorchDispatch", "modes of the inspected program see work on the meta device"),
    "has_kernel": Internal("torch._C._dispatch_has_kernel_for_dispatch_key", "composite operations are worked out as a whole"),
    "decomposition_table": Internal("torch._decomp.decomposition_table", "operations without a meta kernel are run on ones while small"),
    "no_dispatch": Internal("torch.utils._mode_utils.no_dispatch", _NOT_IN_PLACE),
    "is_meta_included": Internal("torch._C._meta_in_tls_dispatch_include", _NOT_IN_PLACE),
    "include_meta": Internal("torch._C._set_meta_in_tls_dispatch_include", _NOT_IN_PLACE),
    **{
        name: Internal(f"torch.ops.aten.{name}", "without weights, what replaces this operation is worked out from layouts alone")
        for name in (
            *("_local_scalar_dense.default", "_assert_async.default", "_assert_async.msg", "_unsafe_index.Tensor"),
            *("_index_put_impl_.default", "_unsafe_index_put.default", "_embedding_bag.default"),
            *("_embedding_bag_forward_only.default", "_fused_sdp_choice.default"),
            *("_grouped_mm.default", "_transformer_encoder_layer_fwd.default"),
        )
    },
    # transformers
    "from_config": Internal(f"transformers.PreTrainedModel.{FROM_CONFIG}", "the class is called with the config, under its dtype"),
    "init_weights": Internal(
        f"transformers.PreTrainedModel.{INIT_WEIGHTS}", "without weights, position ids and masks that constructors compute are guessed"
    ),
    "get_class_from_dynamic_module": Internal(
        "transformers.dynamic_module_utils.get_class_from_dynamic_module", "models with code of their own are not loaded"
    ),
    "checkpoint_conversions": Internal(
        "transformers.conversion_mapping.get_model_conversion_mapping",
        "tensors that transformers renames or fuses while loading are not judged in merged checkpoints",
        since="5.0",
    ),
    "rename_checkpoint_key": Internal(
        "transformers.core_model_loading.rename_source_key",
        "tensors that transformers renames or fuses while loading are not judged in merged checkpoints",
        since="5.0",
    ),
    # PEFT
    "AuxiliaryTrainingWrapper": Internal("peft.utils.other.AuxiliaryTrainingWrapper", "of trained copies only modules_to_save is known"),
    "NoMatchingPeftModuleError": Internal(
        "peft.utils.NoMatchingPeftModuleError", "that no target matches is found out by matching them again", since="0.21"
    ),
    "check_mamba": Internal(
        "peft.tuners.tuners_utils._check_lora_target_modules_mamba", "targets that PEFT refuses on Mamba are explained in PEFT's own words"
    ),
    "conversion_patterns": Internal(
        "peft.utils.transformers_weight_conversion._MODEL_TO_CONVERSION_PATTERN", "no config is known to be rewritten", since="0.20"
    ),
    "fused_targets": Internal(
        "peft.utils.transformers_weight_conversion._MOE_TARGET_MODULE_MAPPING", "no config is known to be rewritten", since="0.20"
    ),
    "convert_adapter": Internal(
        "peft.utils.transformers_weight_conversion.convert_peft_adapter_state_dict_for_transformers",
        "tensors of adapters from before transformers 5 are looked for under the names they have",
        since="0.20",
    ),
    "remap_for_load": Internal(
        "peft.tuners.tuners_utils.BaseTuner._remap_adapter_state_dict_for_load",
        "keys of a file that have the adapter's own name in them already are not loaded",
        since="0.21",
    ),
    "disable_adapters": Internal(f"peft.tuners.tuners_utils.BaseTunerLayer.{DISABLED}", "whether enabling helps is not tried"),
    "active_adapter": Internal(f"peft.tuners.tuners_utils.BaseTunerLayer.{ACTIVE}", "whether activating helps is not tried"),
    # huggingface_hub
    "is_offline_mode": Internal("huggingface_hub.constants.is_offline_mode", "the constant HF_HUB_OFFLINE is read", since="1.0"),
}


class MissingInternalError(InspectionError):
    """A name that the installed release no longer has, and that there is no other way around."""


@cache
def find(name: str) -> Any:
    """What the installed release has for `name`, a key of `INTERNALS`; None where it has nothing."""
    internal = INTERNALS[name]
    path, *parts = internal.path.split(".")
    try:
        value = importlib.import_module(path)
        for part in parts:
            path = f"{path}.{part}"
            value = getattr(value, part) if hasattr(value, part) else importlib.import_module(path)
    except ImportError:
        return None
    return attrgetter(parts[-1]) if internal.attribute else value


def require(name: str) -> Any:
    """The same, for what there is no other way around.

    Raises:
        MissingInternalError: the installed release has it no longer.
    """
    found = find(name)
    if found is None:
        internal = INTERNALS[name]
        release = f"{internal.library} {importlib.import_module(internal.library).__version__}"
        raise MissingInternalError(f"{release} has no {internal.path} (it is there in {CHECKED[internal.library]}): {internal.without}")
    return found


def __getattr__(name: str) -> Any:
    if name not in INTERNALS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return require(name)
