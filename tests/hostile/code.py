"""Code of users that does what no code should, once, in the middle of a training program that is otherwise in order."""
# ruff: noqa: E501 - tables of code

from __future__ import annotations

import random
from itertools import chain

from tests.hostile.values import TEXTS
from tests.hostile.worker import Case

_PROGRAM = """
import asyncio, atexit, builtins, collections, contextlib, copy, enum, functools, gc, io, os, random, signal, sys, threading, time, types, warnings, weakref
import torch
from torch import nn
from peft import LoraConfig, get_peft_model

class Quiet(Exception):
    def __str__(self): raise RuntimeError("no message")
    __repr__ = __str__
class Odd(BaseException): pass
class Wordless(Exception):
    def __str__(self): return 7
class Endless(Exception):
    def __str__(self): return str(self)
class Ending(Exception):
    def __str__(self): raise SystemExit(0)
class Trap:
    def __getattr__(self, name): raise Odd(name)
    def __bool__(self): raise Odd("bool")
    def __len__(self): raise Odd("len")
    def __eq__(self, other): raise Odd("eq")
    def __hash__(self): raise Odd("hash")
    def __repr__(self): raise Odd("repr")
    __str__ = __repr__
class Lying:
    @property
    def __class__(self): return nn.Module
class Sub(torch.Tensor): pass
class Refusing(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, kinds, args=(), kwargs=None):
        if func.__name__ in ("detach", "clone", "requires_grad_", "__get__"): raise RuntimeError("not with me")
        return super().__torch_function__(func, kinds, args, kwargs or {})
class Net(nn.Module):
    @members@
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        @init@
    def forward(self, x=None):
        @forward@
        h = torch.relu(self.first(x)) + self.second(x)
        @between@
        out = self.head(h).sum()
        @after@
        return out

def build():
    @build@
    model = get_peft_model(Net(), LoraConfig(r=2, target_modules=["first", "second"], modules_to_save=["head"]))
    @built@
    return model
def batch():
    @batch@
    return {"x": torch.ones(2, 4)}
def loss(model, batch):
    @loss@
    return model(**batch)
def optimizer(model):
    @optimizer@
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
@top@
"""
_LOOP = """
model = build()
opt = optimizer(model)
for step in range(3):
    opt.zero_grad()
    value = loss(model, batch())
    @before@
    value.backward()
    @middle@
    opt.step()
    @step@
"""
_CALL = """
import peft_inspect
try:
    model = build()
    given = dict(@given@)
except BaseException:
    sys.stderr.write("not made")
    sys.exit(2)
try:
    report = peft_inspect.@command@(model, **given)
    (str(report), repr(report)@details@)
except (peft_inspect.InspectionError, peft_inspect.FindingsError) as error:
    sys.stderr.write("said: " + str(error))
    sys.exit(2)
except (Quiet, Odd, GeneratorExit, SystemExit, asyncio.CancelledError, BaseExceptionGroup):  # raised by the code above: goes on its way
    sys.stderr.write("went on its way")
    sys.exit(2)
"""
# what ends the code, at whichever place it stands: never a verdict
_RAISING = (
    "ValueError('no')", "Quiet()", "Wordless()", "Endless()", "Ending()", "Odd('x')", "GeneratorExit()", "asyncio.CancelledError()", "SystemExit(0)", "SystemExit(1)", "SystemExit('text')",
    "SystemExit(None)", "StopIteration(3)", "RecursionError()", "MemoryError()", "ExceptionGroup('g', [ValueError(1), Quiet()])", "BaseExceptionGroup('g', [Odd()])", "Exception('x' * 10**6)", "Exception('a\\n::error::b')",
    "Exception('\\x1b[31m')", "KeyError('\\ud800')", "UnicodeDecodeError('utf-8', b'', 0, 1, 'x')", "OSError(28, 'No space')", "BrokenPipeError()", "AssertionError", "torch.OutOfMemoryError('CUDA out of memory')", "NotImplementedError()", "StopAsyncIteration()", "EOFError()",
)  # fmt: skip
_ENDING = (
    *(f"raise {error}" for error in _RAISING), "sys.exit(0)", "os._exit(0)", "os._exit(1)", "os.kill(os.getpid(), signal.SIGSEGV)", "os.abort()", "os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGTERM)",
    "exec('raise ValueError(1)', {})", "(lambda f: f(f))(lambda f: f(f))", "raise ValueError('a') from Quiet()", "import not_there_at_all", "1 / 0", "nn.Linear(4, 4)(torch.ones(3))",
)  # fmt: skip
# what it gives instead of what is expected
_RETURNED = (
    "None", "3", "'text'", "[]", "{}", "float('nan')", "Trap()", "Lying()", "nn.Module", "torch.ones(2)", "torch.tensor(1.0)", "torch.tensor(1)", "(i for i in ())", "object()", "lambda *a, **k: 1", "Net.__new__(Net)", "nn.Module.__new__(nn.Linear)",
    "collections.OrderedDict(x=None)", "{'x': None}", "{1: 2}", "{'x': Trap()}", "{'x': torch.ones(2, 4), '\\n::error::b': 1}", "types.SimpleNamespace(loss=Trap())", "{'loss': 'text'}", "torch.ones(2, 4).to_sparse()", "torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])",
    "{'x': torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)])}", "{'x': torch.ones(2, 4, dtype=torch.float64)}", "{'x': torch.ones(2, 4, requires_grad=True)}", "{'x': torch.ones(2, 4).as_subclass(Sub)}", "{'x': torch.ones(2, 4).as_subclass(Refusing)}", "{'x': torch.empty(2, 4, device='meta')}",
    "nn.ModuleList([nn.Linear(2, 2)])", "nn.Sequential()", "nn.LazyLinear(3)", "torch.jit.trace(nn.Linear(4, 4), torch.ones(2, 4))", "torch.jit.script(nn.Linear(4, 4))", "torch.nn.DataParallel(nn.Linear(4, 4))", "torch.compile(nn.Linear(4, 4))", "copy.copy(nn.Linear(4, 4))", "torch.ones(1).expand(10**9)",
    "torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)", "types.SimpleNamespace(param_groups=None)", "types.SimpleNamespace(param_groups=[{}])", "types.SimpleNamespace(param_groups=[{'params': [Trap()]}])", "types.SimpleNamespace(param_groups=Trap())", "torch.optim.LBFGS([torch.zeros(1, requires_grad=True)])", "torch.optim.SparseAdam([torch.zeros(1, requires_grad=True)])",
)  # fmt: skip
# what it changes for everybody, and goes on
_CHANGING = (
    "builtins.print = None", "builtins.open = None", "builtins.len = lambda *a: 0", "builtins.isinstance = None", "builtins.str = int", "builtins.sorted = None", "builtins.hasattr = lambda *a: True", "builtins.Exception = ValueError", "builtins.__import__ = None", "builtins.id = lambda x: 1", "builtins.type = None",
    "sys.stdout.close()", "sys.stderr.close()", "os.close(1)", "os.close(2)", "os.close(0)", "[os.close(n) for n in range(3, 20) if os.path.exists(f'/proc/self/fd/{n}')]", "sys.stdout = None", "sys.stderr = None", "sys.stdout = Trap()", "sys.stderr = io.StringIO()", "sys.stdout = io.BytesIO()", "sys.stderr = 5",
    "os.write(1, b'on one\\n')", "os.write(2, b'on two\\n')", "[os.write(n, b'junk' * 99) for n in range(3, 12) if os.path.exists(f'/proc/self/fd/{n}') and os.access(f'/proc/self/fd/{n}', os.W_OK)]", "print('spoken')", "print('x' * 100000)", "sys.__stdout__.write('past')", "os.dup2(0, 1)", "os.dup2(1, 2)",
    "signal.signal(signal.SIGINT, signal.SIG_IGN)", "signal.signal(signal.SIGTERM, lambda *_: 1 / 0)", "signal.setitimer(signal.ITIMER_REAL, 0.05)", "signal.signal(signal.SIGALRM, lambda *_: sys.exit(0)); signal.setitimer(signal.ITIMER_REAL, 0.03)", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "signal.alarm(1)",
    "os.makedirs('gone'); os.chdir('gone'); os.rmdir('../gone')", "os.chdir('/')", "os.environ.clear()", "os.environ['PYTHONPATH'] = '/nowhere'", "os.environ['TMPDIR'] = '/nowhere'", "os.umask(0o777)", "sys.path.clear()", "sys.modules.pop('peft_inspect', None)", "sys.modules.pop('json', None)", "sys.meta_path.clear()", "sys.argv = None", "sys.setrecursionlimit(120)", "sys.excepthook = None", "sys.settrace(lambda *a: None)", "sys.setprofile(lambda *a: None)", "threading.settrace(lambda *a: None)",
    "torch.set_default_dtype(torch.float64)", "torch.set_default_dtype(torch.float16)", "torch.set_default_device('meta')", "torch.set_grad_enabled(False)", "torch.inference_mode().__enter__()", "torch.no_grad().__enter__()", "torch.use_deterministic_algorithms(True)", "torch.autograd.set_detect_anomaly(True)", "torch.manual_seed(0)", "torch.set_num_threads(2)", "torch.autocast('cpu', torch.bfloat16).__enter__()", "torch.device('meta').__enter__()",
    "nn.Module.__call__ = None", "nn.Module.__call__ = lambda self, *a, **k: self.forward(*a, **k)", "nn.Module.named_modules = lambda self, *a, **k: iter(())", "nn.Module.named_parameters = None", "nn.Module.train = None", "nn.Linear.forward = lambda self, x: x", "torch.Tensor.backward = None", "torch.Tensor.__repr__ = None", "torch.relu = None", "torch.nn.functional.linear = lambda x, w, b=None: x @ w.T", "torch.Tensor.requires_grad_ = lambda self, *a: self", "torch.nn.modules.module.register_module_forward_hook(lambda *a: 1 / 0)", "nn.Module.__getattr__ = lambda self, name: None",
    "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "threading.Thread(target=lambda: 1 / 0).start()", "threading.Thread(target=os._exit, args=(0,)).start()", "threading.Thread(target=time.sleep, args=(30,)).start()", "os.fork() or os._exit(3)", "os.fork() or (time.sleep(30), os._exit(0))", "atexit.register(lambda: 1 / 0)", "atexit.register(lambda: os._exit(0))", "atexit.register(print, 'after')", "gc.disable()", "gc.set_threshold(1)", "warnings.simplefilter('error')", "warnings.showwarning = None", "random.seed(1)", "time.time = None", "time.perf_counter = lambda: 'now'", "time.sleep = None",
    "import logging; logging.disable(50)", "import logging; logging.root.handlers = [Trap()]", "import linecache; linecache.getline = None", "import inspect; inspect.signature = None", "import json; json.dumps = None; json.dump = None", "import pickle; pickle.dumps = None; pickle.loads = None", "import re; re.compile = None", "import pathlib; pathlib.Path.exists = lambda self: False", "import traceback; traceback.format_exception = None", "import collections; collections.Counter = None",
)  # fmt: skip
_BREAKING = tuple(
    text
    for text in _CHANGING
    if text.startswith(
        (
            "builtins.",
            "import ",
            "nn.Module.",
            "nn.Linear.",
            "torch.Tensor.",
            "torch.relu",
            "torch.nn.functional.",
            "time.",
            "sys.modules",
            "sys.meta_path",
            "sys.path",
            "sys.setrecursionlimit",
            "sys.excepthook",
        )
    )
)
# what a model may be like
_SHAPED = (
    "self.me = [self]", "self._modules['me'] = self", "self.first.me = self", "self.lazy = nn.LazyLinear(3)", "self.lazy = nn.UninitializedParameter() if hasattr(nn, 'UninitializedParameter') else nn.parameter.UninitializedParameter()", "self.nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])", "self.register_buffer('nested', torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))",
    "self.register_buffer('sparse', torch.eye(3).to_sparse())", "self.register_buffer('none', None)", "self.register_buffer('sub', torch.ones(2).as_subclass(Sub))", "self.trap = Trap()", "self.traps = {'a': Trap(), 'b': [Trap()]}", "self.refusing = torch.ones(2).as_subclass(Refusing)", "self.register_buffer('refusing', torch.ones(2).as_subclass(Refusing))", "self.lock = threading.Lock()", "self.file = open(os.devnull)", "self.gen = (i for i in range(3))", "self.rng = random.Random(1)",
    "self.traced = torch.jit.trace(nn.Linear(4, 4), torch.ones(2, 4))", "self.scripted = torch.jit.script(nn.Linear(4, 4))", "self.half = nn.Linear(4, 4).half()", "self.double = nn.Linear(4, 4).double()", "self.complex = nn.Parameter(torch.ones(2, dtype=torch.complex64))", "self.bits = nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn), requires_grad=False)", "self.int = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)", "self.scalar = nn.Parameter(torch.tensor(1.0))", "self.empty = nn.Parameter(torch.empty(0, 4))", "self.meta = nn.Parameter(torch.empty(2, device='meta'))", "self.big = nn.Parameter(torch.zeros(1).expand(10**9))",
    "self.shared = self.first", "self.first.weight = self.second.weight", "self.head = nn.utils.parametrizations.weight_norm(self.head)", "self.head = nn.utils.spectral_norm(self.head)", "self.config = Trap()", "self.config = {'model_type': 'x'}", "self.config = types.SimpleNamespace(to_dict=lambda: 1 / 0)", "self.config = types.SimpleNamespace(vocab_size='a\\n::error::b', model_type='\\x1b[31m')", "self.training = 'yes'", "self.training = None", "self.first.forward = lambda x: x", "self.first.forward = None", "self.__dict__['_modules']['gone'] = None", "self._parameters['odd'] = None",
    "self._buffers['odd'] = 'text'", "self._modules['odd'] = 'text'", "del self._forward_hooks", "self._forward_hooks = None", "self.register_forward_hook(lambda *a: 1 / 0)", "self.register_forward_pre_hook(lambda m, a: (torch.ones(3, 4),))", "self.register_full_backward_hook(lambda *a: 1 / 0)", "self.first.weight.register_hook(lambda g: g * float('nan'))", "self.first.weight.register_hook(lambda g: 1 / 0)", "self.deep = functools.reduce(lambda m, _: nn.Sequential(m), range(400), nn.Linear(2, 2))", "self.wide = nn.ModuleList(nn.Identity() for _ in range(3000))", "self.half()", "self.double()", "self.to('meta')", "self.eval()", "self.requires_grad_(False)", "self.share_memory()",
)  # fmt: skip
_MEMBERS = (
    "def __getattr__(self, name): raise Odd(name)", "def __getattribute__(self, name):\n        if name == 'config': raise Quiet()\n        return super().__getattribute__(name)", "def __repr__(self): raise Odd('repr')", "def __str__(self): return 5", "def __len__(self): return -1", "def __bool__(self): raise Odd('bool')", "def __eq__(self, other): raise Quiet()", "__hash__ = None", "def __iter__(self): raise Odd('iter')",
    "def named_parameters(self, *a, **k): raise Quiet()", "def named_modules(self, *a, **k): raise Quiet()", "def children(self): return iter([5])", "def parameters(self, recurse=True): return iter(())", "def state_dict(self, *a, **k): raise Odd()", "def train(self, mode=True): raise Quiet()", "def eval(self): return None", "def __setattr__(self, name, value): nn.Module.__setattr__(self, name, value)", "def __delattr__(self, name): raise Quiet()", "def __call__(self, *a, **k): return self.forward(*a, **k)", "def __call__(self, *a, **k): raise Quiet()", "def get_input_embeddings(self): raise Quiet()",
    "__slots__ = ('slot',)", "__module__ = None", "__qualname__ = 'a\\n::error::b'", "__doc__ = 5", "__signature__ = 5", "forward_signature = property(lambda self: 1 / 0)", "config = property(lambda self: 1 / 0)", "dtype = property(lambda self: 1 / 0)", "device = property(lambda self: 1 / 0)", "def modules(self): return iter(())", "def __deepcopy__(self, memo): raise Quiet()", "def __reduce_ex__(self, n): raise Quiet()", "def __dir__(self): raise Quiet()", "def get_submodule(self, name): raise Quiet()", "def get_parameter(self, name): raise Quiet()", "def apply(self, f): raise Quiet()", "def zero_grad(self, *a): raise Quiet()", "def requires_grad_(self, x=True): raise Quiet()",
)  # fmt: skip
_PLACES = ("top", "init", "forward", "between", "after", "build", "built", "batch", "loss", "optimizer")
_SIGNALLED = (-11, -6, -9, -15, -14)  # a program that is run in the place of Python may end as it would there, which is no verdict
_IN_LOOP = ("before", "middle", "step")
_OPTIONS = (("--batch", "t.py:batch"), ("--loss", "t.py:loss"), ("--optimizer", "t.py:optimizer"))


def _filled(text: str, **inserted: str) -> str:
    for name, code in inserted.items():
        text = text.replace(f"@{name}@", code)
    return text


def _program(**inserted: str) -> str:
    return _filled(_PROGRAM, **{**dict.fromkeys((*_PLACES, "members"), "pass"), **inserted})


def _mischief(draw: random.Random, places: tuple[str, ...]) -> tuple[dict[str, str], bool]:
    """What stands at which place, and whether nothing can be inspected because of it."""
    kind = draw.randrange(10)
    if kind < 3:
        return {draw.choice(places): draw.choice(_ENDING)}, True
    if kind < 5:
        return {
            draw.choice(
                [place for place in places if place not in ("top", "init", "step", "before", "middle")]
            ): f"return {draw.choice(_RETURNED)}"
        }, False
    if kind < 8:
        return {draw.choice(places): draw.choice(_CHANGING)}, False
    return ({"init": draw.choice(_SHAPED)} if kind == 8 else {"members": draw.choice(_MEMBERS)}), False


def _breaks(inserted: dict[str, str]) -> bool:
    return not {*inserted.values()}.isdisjoint(_BREAKING)


def _callables(draw: random.Random) -> Case:
    """The command with callables of the user's."""
    inserted, ends = _mischief(draw, _PLACES)
    options = [*chain.from_iterable(_OPTIONS)] if inserted.keys() & {"batch", "loss", "optimizer"} else []
    command = draw.choice(("tree", "gradcheck", "gradcheck", "check", "check"))
    runs = command != "tree" or not inserted.keys() & {"forward", "between", "after", "batch", "loss", "optimizer"}
    arguments = (command, "t.py:build", *options, *draw.choice(((), ("--format", "json"))))
    codes = frozenset({2} if ends and runs else {0, 1, 2})
    return Case("callables", arguments, {"t.py": _program(**inserted)}, codes=codes, prints=True, breaks=_breaks(inserted))


def _names(draw: random.Random) -> Case:
    """A model of which nothing is wrong but what its parts are called, and what its errors say."""
    text = draw.choice(TEXTS).replace(".", "_") or "empty"
    quoted = ascii(text)
    at = draw.randrange(5)
    inserted = (
        {"init": f"self._modules[{quoted}] = nn.Linear(4, 4)"}, {"init": f"self._parameters[{quoted}] = nn.Parameter(torch.ones(2))"}, {"top": f"Net.__name__ = {quoted}.replace(chr(0), '')"},
        {"forward": f"raise ValueError({quoted})"}, {"built": f"model.add_adapter({quoted}, LoraConfig(r=2, target_modules=['first'])); model.set_adapter({quoted})"},
    )[at]  # fmt: skip
    from tests.hostile.grammar import asked

    return Case("names in code", (*asked(draw), "t.py:build"), {"t.py": _program(**inserted)})


def _run(draw: random.Random) -> Case:
    """A training program under `run`."""
    inserted, ends = _mischief(draw, (*_PLACES, *_IN_LOOP))
    text = _program(**inserted) + _filled(_LOOP, **{**dict.fromkeys(_IN_LOOP, "pass"), **inserted})
    codes = frozenset({2, *_SIGNALLED} if ends and not inserted.keys() & {"step", "top", "middle"} else {0, 1, 2, *_SIGNALLED})
    return Case(
        "programs",
        ("run", *draw.choice(((), ("--format", "json"), ("--keep-going",))), "t.py"),
        {"t.py": text},
        codes=codes,
        prints=True,
        breaks=_breaks(inserted),
    )


def _api(draw: random.Random) -> Case:
    """The Python API on a live model: a report, an InspectionError, or the exception that the code itself raised."""
    inserted, _ = _mischief(draw, tuple(place for place in _PLACES if place != "top"))
    if next(iter(inserted.values())) in _CHANGING or "exit" in str(inserted) or "os.kill" in str(inserted) or "abort" in str(inserted):
        inserted = {"init": draw.choice(_SHAPED)} if draw.random() < 0.6 else {"members": draw.choice(_MEMBERS)}
    command = draw.choice(("check", "gradcheck", "tree"))
    given = (
        ("batch=batch()", draw.choice(("", ", loss=loss", ", optimizer=optimizer(model)")))
        if command != "tree" and draw.random() < 0.8
        else ()
    )
    details = ", report.to_dict(), report.html()" if command != "tree" else ""
    text = _program(**inserted) + _filled(_CALL, command=command, given="".join(given), details=details)
    return Case("Python API", ("t.py",), {"t.py": text}, prints=True, script=True)


KINDS = (_callables, _callables, _names, _run, _api)
