"""Hub ids, fetched by the real client from a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import torch
from hub_server import COMMIT, Repo, serve
from huggingface_hub import constants
from safetensors.torch import save
from transformers import dynamic_module_utils

from peft_inspect.records import InspectionError

CONFIG = {
    "config.json": json.dumps(
        {
            "model_type": "llama",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": 64,
        }
    ).encode()
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Serve repositories, with an empty cache and no token."""
    repos = {"team/tiny": Repo(dict(CONFIG))}
    with serve(repos) as running:
        point_to(running.endpoint, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running


def point_to(endpoint, monkeypatch):
    """What HF_ENDPOINT does, read by the client when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


def test_an_id_fetches_the_config_and_nothing_else(load, hub):
    hub.repos["team/tiny"].files["model.safetensors"] = b"never read"
    subject = load("team/tiny", lora_fields={"target_modules": "q_proj"})
    assert subject.weights == "none"
    assert sum(parameter.numel() for parameter in subject.model.get_base_model().parameters()) > 0
    assert {request for request in hub.requests if request.startswith("GET")} == {"GET team/tiny/config.json"}


def test_a_revision_is_honoured(load, hub):
    hub.repos["team/tiny"].revisions = ("v2", COMMIT)
    assert type(load("team/tiny@v2").model).__name__ == "LlamaForCausalLM"
    with pytest.raises(InspectionError, match=r"team/tiny on the hub has no revision 'v3'"):
        load("team/tiny@v3")


def test_a_second_load_answers_from_the_cache_while_the_hub_is_down_and_says_so(load, hub):
    assert load("team/tiny").notes == ()
    hub.repos["team/tiny"].refuses = "broken"
    subject = load("team/tiny")
    assert type(subject.model).__name__ == "LlamaForCausalLM"
    assert any("team/tiny is read from the cache, where it may be older than on the hub" in note for note in subject.notes)


def depth(load, name="team/tiny"):
    return load(name).model.config.num_hidden_layers


def change(repo, layers, commit="f" * 40):
    """What a push does: other content, another ETag, another commit of the same branch."""
    repo.files["config.json"] = json.dumps({**json.loads(repo.files["config.json"]), "num_hidden_layers": layers}).encode()
    repo.commit, repo.revisions = commit, (*repo.revisions, commit)


def test_a_file_that_changed_on_the_hub_is_fetched_anew_and_only_then(load, hub):
    assert [depth(load), depth(load)] == [2, 2]
    assert hub.requests.count("GET team/tiny/config.json") == 1
    change(hub.repos["team/tiny"], 3)
    assert [depth(load), depth(load)] == [3, 3]
    assert hub.requests.count("GET team/tiny/config.json") == 2
    assert depth(load, f"team/tiny@{COMMIT}") == 2  # as it was, from the cache


def test_a_change_whose_download_is_cut_shows_neither_half_of_it_nor_what_was_before(load, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert depth(load) == 2
    repo = hub.repos["team/tiny"]
    change(repo, 3)
    repo.cut = True
    with pytest.raises(InspectionError, match=r"config.json of team/tiny could not be fetched"):
        load("team/tiny")
    assert all(json.loads(file.read_bytes()) for file in (tmp_path / "cache").rglob("config.json"))
    repo.cut = False
    assert depth(load) == 3


def test_weights_that_changed_on_the_hub_are_not_mixed_with_those_before(load, hub):
    repo = hub.repos["team/tiny"]
    state = {name: tensor.clone() for name, tensor in load("team/tiny", weights="random").model.state_dict().items()}
    for value, commit in ((1.0, COMMIT), (2.0, "f" * 40)):
        repo.files["model.safetensors"] = save({name: torch.full_like(tensor, value) for name, tensor in state.items()}, {"format": "pt"})
        repo.commit, repo.revisions = commit, (*repo.revisions, commit)
        loaded = load("team/tiny", weights="pretrained").model.state_dict()
        assert all((loaded[name] == value).all() for name in state)


def test_offline_mode_uses_the_cache_and_says_where_it_looked(load, hub, monkeypatch):
    load("team/tiny")
    asked = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert type(load("team/tiny").model).__name__ == "LlamaForCausalLM"
    with pytest.raises(InspectionError, match=r"team/other is not in the cache .*cache, and HF_HUB_OFFLINE"):
        load("team/other")
    assert len(hub.requests) == asked


def test_a_gated_repository_says_how_to_get_in_and_a_token_does(load, hub, monkeypatch):
    hub.repos["team/gated"] = Repo(dict(CONFIG), refuses="gated", token="hf_key")
    with pytest.raises(InspectionError, match=r"team/gated is gated: accept its conditions on .*HF_TOKEN"):
        load("team/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(InspectionError, match=r"the account of your token has no access yet"):
        load("team/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_key")
    assert type(load("team/gated").model).__name__ == "LlamaForCausalLM"


def test_a_missing_or_private_repository_says_both(load, hub):
    hub.repos["team/private"] = Repo(dict(CONFIG), refuses="private")
    for name in ("team/nothing", "team/private"):
        with pytest.raises(InspectionError, match=rf"the hub has no model '{name}', or it is private and you are not logged in"):
            load(name)


def test_a_model_type_without_its_prefix_is_recognised(load, hub):
    with pytest.raises(InspectionError, match=r"did you mean arch:qwen2_audio\?"):
        load("qwen2_audio")


def test_a_repository_without_a_config_says_so(load, hub):
    hub.repos["team/data"] = Repo({"README.md": b"hello"})
    with pytest.raises(InspectionError, match=r"team/data on the hub has no config.json"):
        load("team/data")


def test_a_hub_that_fails_is_named_with_its_answer(load, hub):
    hub.repos["team/tiny"].refuses = "broken"
    with pytest.raises(InspectionError, match=r"http://127.0.0.1:\d+ answers 500 for config.json of team/tiny: try again later"):
        load("team/tiny")


def test_a_hub_that_does_not_answer_is_given_up_after_the_timeout(load, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
    hub.repos["team/slow"] = Repo(dict(CONFIG), delay=3)
    started = time.monotonic()
    with pytest.raises(InspectionError, match=r"config.json of team/slow could not be fetched .*Timeout"):
        load("team/slow")
    assert time.monotonic() - started < 3


def test_a_hub_that_drips_is_given_up_at_the_deadline(load, hub, monkeypatch):
    """Each byte comes in time, and the last one never would."""
    monkeypatch.setattr("peft_inspect.load.model.hub._SMALL", 1)
    hub.repos["team/drips"] = Repo(dict(CONFIG), drip=0.2)
    started = time.monotonic()
    with pytest.raises(InspectionError, match=r"config.json of team/drips could not be fetched .*not complete after 1 seconds"):
        load("team/drips")
    assert time.monotonic() - started < 10


def test_a_connection_that_is_cut_is_a_failure_and_not_a_half_config(load, hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    hub.repos["team/cut"] = Repo(dict(CONFIG), cut=True)
    with pytest.raises(InspectionError, match=r"config.json of team/cut could not be fetched"):
        load("team/cut")


def test_no_hub_at_all_names_the_ways_out(load, hub, monkeypatch):
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(InspectionError, match=r"could not be fetched from http://127.0.0.1:9 .*arch:TYPE works without a network"):
        load("team/tiny")


def test_pretrained_weights_come_through_a_redirect(load, hub):
    state = load("team/tiny", weights="random").model.state_dict()
    hub.repos["team/tiny"].files["model.safetensors"] = save({name: tensor.clone() for name, tensor in state.items()}, {"format": "pt"})
    hub.repos["team/tiny"].redirects = True
    loaded = load("team/tiny", weights="pretrained").model.state_dict()
    assert all((loaded[name] == tensor).all() for name, tensor in state.items())


def test_an_adapter_on_the_hub_brings_its_base_of_the_revision_it_was_trained_on(load, hub):
    config = {"peft_type": "LORA", "target_modules": ["q_proj"], "r": 2, "base_model_name_or_path": "team/tiny", "revision": "v1"}
    tensors = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight": torch.ones(shape)
        for layer in range(2)
        for side, shape in (("A", (2, 16)), ("B", (16, 2)))
    }
    files = {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(tensors, {"format": "pt"})}
    hub.repos["team/adapter"] = Repo({**files, "README.md": b"not fetched"})
    hub.repos["team/tiny"].revisions = ("main", "v1", COMMIT)
    subject = load("team/adapter")
    assert "base model: team/tiny@v1" in subject.notes
    assert subject.model.peft_config["default"].r == 2
    assert len(subject.adapter_files[0].tensors) == 4
    assert not any("README" in request for request in hub.requests)
    trained = load("team/adapter", weights="random").model
    assert all((parameter == 1).all() for name, parameter in trained.named_parameters() if "lora_" in name)


def test_code_of_a_repository_is_never_run_unasked(load, hub, tmp_path):
    marker = tmp_path / "ran"
    config = {"model_type": "homegrown", "auto_map": {"AutoConfig": "code.HomeConfig", "AutoModel": "code.HomeModel"}}
    hub.repos["team/code"] = Repo({"config.json": json.dumps(config).encode(), "code.py": f"open({str(marker)!r}, 'w')".encode()})
    with pytest.raises(InspectionError, match=r"read that code, then pass --trust-remote-code"):
        load("team/code")
    assert not marker.exists()
    assert not any("code.py" in request for request in hub.requests)


def test_code_of_a_repository_is_run_when_it_is_trusted_and_fails_with_its_own_traceback(load, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = {"model_type": "homegrown", "auto_map": {"AutoConfig": "home.HomeConfig", "AutoModelForCausalLM": "home.HomeModel"}}
    code = (
        "import torch\nfrom transformers import PretrainedConfig, PreTrainedModel\n"
        "class HomeConfig(PretrainedConfig):\n    model_type = 'homegrown'\n"
        "class HomeModel(PreTrainedModel):\n    config_class = HomeConfig\n"
        "    def __init__(self, config):\n        super().__init__(config); self.line = torch.nn.Linear(2, 1); self.post_init()\n"
    )
    hub.repos["team/code"] = Repo({"config.json": json.dumps(config).encode(), "home.py": code.encode()})
    assert type(load("team/code", trust_remote_code=True).model).__name__ == "HomeModel"
    hub.repos["team/bad"] = Repo({"config.json": json.dumps(config).encode(), "home.py": b"1 / 0\n"})
    with pytest.raises(InspectionError, match=r"the code of team/bad raised ZeroDivisionError") as raised:
        load("team/bad", trust_remote_code=True)
    assert "1 / 0" in raised.value.detail


def test_the_environment_variables_of_the_client_are_honoured(hub, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_TOKEN in a process of its own, since the client reads them when it is imported."""
    hub.repos["team/gated"] = Repo(dict(CONFIG), refuses="gated", token="hf_key")
    program = (
        "from peft_inspect.load import load; from peft_inspect.records import Request;"
        "print(type(load(Request(model='team/gated'), lambda _: None).model).__name__)"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_key"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("LlamaForCausalLM\n", 0), done.stderr
    assert (tmp_path / "home" / "hub").is_dir()
