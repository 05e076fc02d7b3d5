"""What a forward that cannot run says, and what to do about it."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, LlamaConfig, LlamaForCausalLM

import peft_inspect
from peft_inspect.api import inspect
from peft_inspect.records import InspectionError, Request

TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}


class Duplex(nn.Module):
    """A model of parts that is never called itself."""

    def __init__(self, config):
        super().__init__()
        self.thinker = LlamaForCausalLM(config)
        self.scales = nn.ParameterList()


def test_a_model_without_forward_names_its_parts_and_how_to_train_them():
    model = get_peft_model(Duplex(LlamaConfig(**TINY)), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(InspectionError, match=r"Duplex has no forward: .* parts, thinker \(LlamaForCausalLM\)\. Say how with --loss"):
        peft_inspect.gradcheck(model)


class Pair(nn.Linear):
    """A linear layer to PEFT, and none in what it returns."""

    def forward(self, x):
        return super().forward(x), x


class Routed(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = Pair(4, 4)

    def forward(self, x):
        return self.router(x)[0]


@pytest.mark.parametrize("weights", ["with values", "none"])
def test_a_layer_that_peft_cannot_adapt_is_named_with_what_to_leave_out(weights):
    with torch.device("meta" if weights == "none" else "cpu"):
        model = get_peft_model(Routed(), LoraConfig(target_modules=["router"]), low_cpu_mem_usage=weights == "none")
    with pytest.raises(InspectionError, match=r"its base layer is a Pair, .* --exclude-modules router"):
        peft_inspect.gradcheck(model, batch={"x": torch.ones(2, 4)})


def test_a_task_type_whose_wrapper_passes_on_what_the_base_does_not_take_is_told():
    model = get_peft_model(nn.Sequential(nn.Linear(4, 4)), LoraConfig(target_modules=["0"], task_type="FEATURE_EXTRACTION"))
    with pytest.raises(InspectionError, match=r"passes 'input_ids' on, and Sequential takes none: leave task_type out"):
        peft_inspect.gradcheck(model, batch={"input": torch.ones(2, 4)})


def test_a_module_that_python_spells_out_in_an_error_is_called_by_its_class():
    request = Request("arch:whisper", lora_fields={"target_modules": ["q_proj"], "task_type": "SEQ_2_SEQ_LM"}, reduce=True)
    with pytest.raises(InspectionError, match=r"WhisperDecoder\(…\) got multiple .* task_type=SEQ_2_SEQ_LM makes PEFT") as told:
        inspect(request, "gradcheck")
    assert "\n" not in str(told.value)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_an_embedding_that_peft_ties_as_a_linear_layer_is_told():
    config = BartConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, vocab_size=32,
    )  # fmt: skip
    lora = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"], ensure_weight_tying=True)
    model = get_peft_model(BartForConditionalGeneration(config), lora)
    with pytest.raises(InspectionError, match=r"PEFT trains a Linear in the place of this \w*Embedding, because ensure_weight_tying"):
        peft_inspect.gradcheck(model)


def test_a_library_module_without_gradients_is_shown_at_its_own_decorator():
    """The indexer of DeepSeek-V3.2 runs under no_grad, and its model calls it like any other module."""
    request = Request(model="arch:deepseek_v32", lora_fields={"target_modules": ["q_a_proj", "wq_b"]}, reduce=True)
    (found,) = inspect(request, "gradcheck", verify=False).findings
    assert (found.code, found.source.code) == ("PI303", "@torch.no_grad()")
    assert found.source.file.endswith("modeling_deepseek_v32.py")
    assert found.fix.startswith("leave these layers out of target_modules")


@pytest.mark.parametrize("mask", [-math.inf, torch.finfo(torch.float32).min])
def test_masked_outputs_do_not_make_the_loss_infinite(mask):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(4, 4)

        def forward(self, x):
            return {"logits": self.score(x).masked_fill(torch.tensor([True, True, False, False]), mask)}

    torch.manual_seed(0)
    report = peft_inspect.gradcheck(get_peft_model(Masked(), LoraConfig(target_modules=["score"])), batch={"x": torch.rand(2, 4)})
    assert [found.code for found in report.findings] == ["PI320"]  # there is no loss, and nothing else is wrong


class Ending(nn.Module):
    """A model whose forward, or backward, ends in what no `except Exception` catches."""

    def __init__(self, phase):
        super().__init__()
        self.linear, self.phase = nn.Linear(2, 2), phase

    def forward(self, x):
        if self.phase == "forward":
            raise GeneratorExit("ended")
        y = self.linear(x)
        y.register_hook(lambda _: (_ for _ in ()).throw(GeneratorExit("ended")))
        return y


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_what_is_no_error_of_the_step_goes_on_its_way(phase):
    """A cancelled task, a signal's own exception: for who calls the API it is what it was."""
    with pytest.raises(GeneratorExit, match="ended"):
        peft_inspect.gradcheck(get_peft_model(Ending(phase), LoraConfig(target_modules=["linear"])), {"x": torch.ones(1, 2)})


PROGRAM = """
import torch
from peft import LoraConfig, get_peft_model

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x):
        if "PHASE" == "forward":
            raise GeneratorExit("ended")
        y = self.linear(x)
        y.register_hook(lambda _: (_ for _ in ()).throw(GeneratorExit("ended")))
        return y

def build():
    return get_peft_model(Model(), LoraConfig(target_modules=["linear"]))

def batch():
    return {"x": torch.ones(1, 2)}
"""


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_code_that_was_named_and_ends_so_is_no_verdict(phase, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ending.py").write_text(PROGRAM.replace("PHASE", phase))
    with pytest.raises(InspectionError, match=r"ending.py:build ended with GeneratorExit: ended") as error:
        inspect(Request("ending.py:build", batch="ending.py:batch"), "gradcheck")
    assert "ending.py" in error.value.detail
