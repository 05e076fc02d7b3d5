"""What flows between the rooms: frozen records of plain data, standard library only.

    load → Subject → structure → Structure → trace → Trace → diagnose → Diagnosis → formats

`Subject` is the one exception: it holds the live model, and never leaves the rooms that know torch.
Module paths are those of the live object that was inspected: `root.get_submodule(path)` accepts them.
"""

from peft_inspect.records.adapter_file import AdapterFile, Conversion, TensorInfo
from peft_inspect.records.basics import InspectionError, Mode, Severity, Source, Weights, text_of
from peft_inspect.records.diagnosis import Diagnosis, Finding, Outcome, Remedy, Status
from peft_inspect.records.grouping import Placed, by_place, modules_of, runs_of
from peft_inspect.records.structure import (
    AdapterInfo,
    AdapterLayerInfo,
    BlockStack,
    Carried,
    ConfigEntry,
    Coverage,
    ModuleInfo,
    ModuleKind,
    ParameterInfo,
    Role,
    Structure,
    Tie,
    Tower,
    WeightRead,
)
from peft_inspect.records.subject import Request, Subject
from peft_inspect.records.trace import (
    SWITCHES,
    BaseCall,
    BatchInfo,
    CallInfo,
    CopyCall,
    CutKind,
    GradientInfo,
    GradientState,
    GradRegion,
    GraphCut,
    LossInfo,
    LossTargets,
    NonFinite,
    RegionKind,
    Trace,
    Unexplained,
    WeightUse,
)

__all__ = [
    "SWITCHES",
    "AdapterFile",
    "AdapterInfo",
    "AdapterLayerInfo",
    "BaseCall",
    "BatchInfo",
    "BlockStack",
    "CallInfo",
    "Carried",
    "ConfigEntry",
    "Conversion",
    "CopyCall",
    "Coverage",
    "CutKind",
    "Diagnosis",
    "Finding",
    "GradRegion",
    "GradientInfo",
    "GradientState",
    "GraphCut",
    "InspectionError",
    "LossInfo",
    "LossTargets",
    "Mode",
    "ModuleInfo",
    "ModuleKind",
    "NonFinite",
    "Outcome",
    "ParameterInfo",
    "Placed",
    "RegionKind",
    "Remedy",
    "Request",
    "Role",
    "Severity",
    "Source",
    "Status",
    "Structure",
    "Subject",
    "TensorInfo",
    "Tie",
    "Tower",
    "Trace",
    "Unexplained",
    "WeightRead",
    "WeightUse",
    "Weights",
    "by_place",
    "modules_of",
    "runs_of",
    "text_of",
]
