"""Models of a hub: the folder that is written, and loading it from a server on this machine."""

import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import keras
import numpy as np
import pytest

import snukeras
from snukeras.zoo import command, hub, presets
from snukeras.zoo.publishing import cards, to_hub

CHECKOUT = str(Path(snukeras.__file__).parents[1])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "jsb_snu"
    assert command.main(["publish", "jsb_snu", "--hub", str(folder)]) == 0
    return folder


class HubError(Exception):
    """Stands for errors of huggingface_hub, by their names."""


@pytest.fixture
def stub(monkeypatch, published, tmp_path):
    """A package huggingface_hub that copies from a folder, or raises what it is told to."""
    errors = types.ModuleType("huggingface_hub.errors")
    for name, bases in {
        "EntryNotFoundError": (HubError,),
        "RepositoryNotFoundError": (HubError,),
        "RevisionNotFoundError": (HubError,),
        "HfHubHTTPError": (HubError,),
    }.items():
        setattr(errors, name, type(name, bases, {}))
    errors.LocalEntryNotFoundError = type(
        "LocalEntryNotFoundError", (errors.EntryNotFoundError, FileNotFoundError), {}
    )
    stub = types.ModuleType("huggingface_hub")
    stub.errors, stub.asked, stub.error = errors, [], None
    stub.folder = shutil.copytree(published, tmp_path / "repository")

    def hf_hub_download(repository, file, revision=None):
        stub.asked.append((repository, file, revision))
        if stub.error is not None:
            raise stub.error
        if not (stub.folder / file).is_file():
            raise errors.EntryNotFoundError(file)
        return str(stub.folder / file)

    stub.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", stub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return stub


def test_the_folder_holds_files_card_and_results(published):
    assert sorted(path.name for path in published.iterdir()) == [
        "README.md", "config.json", "golden.npz", "model.weights.h5", "preset.json", "recipe.json",
        "results.json",
    ]  # fmt: skip
    card = (published / "README.md").read_text("utf-8")
    assert card.startswith("---\nlicense: ") and 'load("hf://OWNER/jsb_snu")' in card
    assert "](../" not in card and "`jsb_lstm`" in card
    preset = json.loads((published / "preset.json").read_text())
    for file, pinned in preset["files"].items():
        assert hashlib.sha256((published / file).read_bytes()).hexdigest() == pinned["sha256"]


def test_huggingface_hub_reads_the_metadata_of_every_card():
    """What `validate` of the hub's package checks needs the hub: that it knows what is named."""
    package = pytest.importorskip("huggingface_hub")
    for name in presets.list():
        preset = presets.info(name)
        card = package.ModelCard(cards.card(name, hub=True))
        # Nothing is lost on the way through the reader's own writer.
        again = package.ModelCard(str(card)).data
        assert again.to_dict() == card.data.to_dict() and card.text.strip().startswith("# ")
        data = card.data
        assert (data.license, data.library_name, data.model_name) == ("apache-2.0", "keras", name)
        assert (data.datasets, data.metrics) == ([preset["task"]], [preset["metric"]])
        # A hub refuses spaces in names that are links there, and tags that are not texts.
        assert all(re.fullmatch(r"[a-z0-9._-]+", word) for word in [*data.datasets, *data.tags])
        spikes, device = "spiking-neural-network", "phase-change-memory"
        assert (spikes in data.tags) == ("_snu" in name), name
        assert (device in data.tags) == (name.split("_")[-1] in ("pcm", "chip")), name
        (result,) = data.eval_results
        test = preset["results"]["test"]["mean"]
        assert result.metric_value == pytest.approx(test, abs=1e-4), name
        assert (result.dataset_type, result.metric_type) == (preset["task"], preset["metric"])
        assert result.task_type in data.tags and result.dataset_name and result.metric_name


def test_a_folder_that_holds_something_is_left_alone(published, capsys):
    (published.parent / "full").mkdir()
    (published.parent / "full" / "x").write_text("mine")
    arguments = ["publish", "jsb_snu", "--hub", str(published.parent / "full")]
    assert command.main(arguments) == 1 and "--overwrite" in capsys.readouterr().err
    assert command.main([*arguments, "--overwrite"]) == 0
    assert (published.parent / "full" / "x").read_text() == "mine"
    assert command.main(["publish", "nobody", "--hub", "x"]) == 2


def test_a_damaged_preset_is_not_published(tmp_path):
    content = tmp_path / "zoo"
    shutil.copytree(presets.content_folder() / "jsb_snu", content / "jsb_snu")
    for name in ("results/jsb_snu.json", "published.json"):
        (content / name).parent.mkdir(exist_ok=True)
        shutil.copy(presets.content_folder() / name, content / name)
    with open(content / "jsb_snu" / "config.json", "a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match="bytes instead of"):
        to_hub.write("jsb_snu", tmp_path / "out", content)
    assert not (tmp_path / "out").exists()


def test_it_loads_what_was_published(stub):
    model = snukeras.zoo.load("hf://me/my.model@v1")
    assert stub.asked == [
        ("me/my.model", file, "v1") for file in ("preset.json", "config.json", "model.weights.h5")
    ]
    given, expected = presets.golden("jsb_snu")
    np.testing.assert_allclose(model(given), expected, atol=1e-4)
    stub.asked.clear()
    snukeras.zoo.load("hf://me/my.model", weights=False)
    assert [file for _, file, _ in stub.asked] == ["preset.json", "config.json"]


@pytest.mark.parametrize(
    "name", ["hf://", "hf://owner", "hf://a/b/c", "hf://../x", "hf://a/-b", "hf://a/b@"]
)
def test_an_address_that_is_none(name):
    with pytest.raises(ValueError, match="is named hf://owner/name"):
        snukeras.zoo.load(name)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'snukeras\[hub\]'"):
        snukeras.zoo.load("hf://me/model")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("LocalEntryNotFoundError", ConnectionError, "could not be downloaded.*HF_ENDPOINT"),
        ("HfHubHTTPError", ConnectionError, "could not be downloaded"),
        ("RevisionNotFoundError", ValueError, "no revision 'v9'"),
        ("RepositoryNotFoundError", ValueError, "no repository 'me/model' that you may read"),
        ("EntryNotFoundError", ValueError, "no model of snukeras: it has no preset.json"),
    ],
)
def test_what_a_hub_refuses_is_explained(stub, error, kind, message):
    stub.error = getattr(stub.errors, error)("x")
    with pytest.raises(kind, match=message):
        snukeras.zoo.load("hf://me/model@v9")


def test_another_file_than_the_preset_says_is_refused(stub):
    with open(stub.folder / "model.weights.h5", "r+b") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match=r"has sha256 .* ask its owner"):
        snukeras.zoo.load("hf://me/model")


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "os", "class_name": "system", "config": {}},
        {"module": "keras.layers", "class_name": "Lambda", "config": {}},
        {"module": "builtins", "class_name": "function", "config": "eval"},
        {"module": None, "class_name": "X", "registered_name": "theirs>X", "config": {}},
    ],
)
def test_code_of_others_is_not_run(stub, layer):
    path = stub.folder / "config.json"
    config = json.loads(path.read_text())
    config["config"]["layers"].append(layer)
    path.write_text(json.dumps(config))
    preset = json.loads((stub.folder / "preset.json").read_text())
    preset["files"]["config.json"] = {
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    (stub.folder / "preset.json").write_text(json.dumps(preset))
    with pytest.raises(ValueError, match="names code that is not loaded from a hub"):
        snukeras.zoo.load("hf://me/model")


def test_every_preset_may_come_from_a_hub():
    for name in presets.list():
        hub.check_config(presets.content_folder() / name / presets.CONFIG)


class Endpoint(http.server.BaseHTTPRequestHandler):
    """As much of a hub as loading takes: /owner/name/resolve/revision/file."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        super().__init__(*arguments)

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        parts = self.path.split("?")[0].split("/")
        path = self.folder / parts[-1]
        known = parts[1:4] == ["me", "model", "resolve"] and path.is_file()
        content = path.read_bytes() if known else b""
        self.send_response(200 if known else 404)
        if not known:
            gone = parts[1:3] != ["me", "model"]
            self.send_header("X-Error-Code", "RepoNotFound" if gone else "EntryNotFound")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


LOAD = """
import sys, snukeras
for name in sys.argv[1:]:
    try:
        print(name, snukeras.zoo.load(name).count_params())
    except (ValueError, ConnectionError) as error:
        print(name, type(error).__name__, str(error).splitlines()[0])
"""


@pytest.mark.slow
def test_huggingface_hub_loads_from_an_endpoint_and_then_from_its_cache(published, tmp_path):
    pytest.importorskip("huggingface_hub")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Endpoint, published)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [CHECKOUT, os.environ.get("PYTHONPATH")])),
        "NO_PROXY": "127.0.0.1",
    }

    def load(*names):
        done = subprocess.run(
            [sys.executable, "-c", LOAD, *names], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    loaded, absent = load("hf://me/model", "hf://nobody/model")
    assert loaded == "hf://me/model 26638"
    assert "no repository 'nobody/model'" in absent
    server.shutdown()
    server.server_close()
    again, unreachable = load("hf://me/model", "hf://me/other")
    assert again == "hf://me/model 26638"
    assert "ConnectionError" in unreachable and "could not be downloaded" in unreachable


def test_models_are_keras_models(stub):
    assert isinstance(snukeras.zoo.load("hf://me/model", weights=False), keras.Model)
