"""Weightless execution: the real code of a model at its full size, without the memory of its weights.

Floating tensors have no storage, integer and boolean tensors are real. Whatever Python decides from ids, masks,
grids and lengths takes its true branch; what it decides from floats is made up: a weightless value reads as one, and
indices that are chosen by score are spread evenly, so that every expert gets its share. Autograd sits above and
stays real: which parameter is connected to the loss is exact. What it does not know is how large anything is.

torch's FakeTensorMode has no real integers: it stops where Python branches on data, as loops over experts and checks of
placeholder counts do. docs/how-it-works.md says more.
"""

from peft_inspect.run.weightless.execute import running
from peft_inspect.run.weightless.materialise import materialise
from peft_inspect.run.weightless.tensor import Weightless, WeightlessError, is_weightless, storage_key, weightless_like

__all__ = ["Weightless", "WeightlessError", "is_weightless", "materialise", "running", "storage_key", "weightless_like"]
