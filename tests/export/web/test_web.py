"""--target web: the page's files, what it plays, what is refused; and the runtime that it takes."""

import hashlib
import http.server
import json
import re
import tarfile
import threading
import urllib.error
import urllib.request

import keras
import numpy as np
import onnx
import pytest

import snukeras
from snukeras.datasets import _fetch
from snukeras.export import BadInputError, VerificationError, export, verify_folder
from snukeras.export.command import main
from snukeras.export.folder import CHECKSUMS, WEB, WEB_FILES, WEB_RUNTIME
from snukeras.export.samples import Samples
from snukeras.export.web import runtime
from snukeras.export.web.files import MAX_SAMPLES, packed, unpacked
from snukeras.layers import SNU, RateCoding

LAYERS = keras.layers


@pytest.fixture(scope="module", autouse=True)
def stand_in(tmp_path_factory):
    """Two small files in the place of onnxruntime-web."""
    folder = tmp_path_factory.mktemp("runtime") / "dist"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        digests = {}
        for name in WEB_RUNTIME:
            (folder / name).write_text(f"// {name}")
            digests[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        patch.setattr(runtime, "FILES", digests)
        patch.setenv(runtime.VARIABLE, str(folder.parent))
        yield folder


def music():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((None, 88), name="roll"),
            SNU(12, return_sequences=True, threshold=0.2, name="snu"),
            LAYERS.Dense(88, activation="sigmoid", name="keys"),
        ],
        name="music",
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "music"
    return folder, export(music(), folder, target="web")


def known(folder):
    return json.loads((folder / "network.json").read_text("utf-8"))


def sums(folder):
    """Write the list of checksums anew, as somebody who alters a file would."""
    lines = (folder / CHECKSUMS).read_text().splitlines()
    names = [line.split("  ")[1] for line in lines]
    text = "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    )
    (folder / CHECKSUMS).write_text(text)


def test_a_network_of_keys_plays_the_chorales_step_by_step(exported):
    folder, report = exported
    assert report.verification.ok and report.options.target == "web" and report.map is None
    assert {*WEB_FILES, *WEB_RUNTIME} <= set(report.files)
    assert report.web.steps == "one" and report.web.reason is None
    assert report.verification.web.samples == report.web.samples == MAX_SAMPLES
    page = known(folder)
    assert page["keys"] and page["samples"][0]["name"].startswith("BWV 3.6, Ach Gott")
    assert [state["in"] for state in page["states"]] == ["snu/s_in", "snu/y_in"]
    assert page["layers"][0]["tensor"] == "snu/y_out" and page["layers"][0]["spiking"]
    _, rolls = snukeras.zoo.samples.read()
    assert np.array_equal(unpacked(page["samples"][0]), rolls[0][:-1])
    # What the page compares itself with is Keras's own.
    x = rolls[0][None, :-1].astype("float32")
    model = keras.models.load_model(folder / "model.keras")
    assert np.allclose(unpacked(page["check"]["outputs"]["keys"]), model(x)[0], atol=1e-6)
    spikes = snukeras.trace(model, x)["snu"]["spikes"][0]
    assert spikes.any() and np.array_equal(unpacked(page["check"]["layers"]["snu"]), spikes)
    assert verify_folder(folder).web == report.verification.web


def test_nothing_comes_from_another_host(exported):
    folder, _ = exported
    for name in ("index.html", "player.js", "player.css"):
        text = (folder / name).read_text("utf-8").replace("http://localhost:8000", "")
        assert not re.search(r"https?:|//[a-z]+\.", text), name
    page = (folder / "index.html").read_text("utf-8")
    for name in re.findall(r'(?:src|href)="([^"#:]+)"', page):
        assert (folder / name).is_file(), name


def copied(exported, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in exported[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("name", ["player.js", "model-web.onnx", WEB_RUNTIME[1]])
def test_one_changed_byte_is_noticed(exported, tmp_path, name):
    folder = copied(exported, tmp_path)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(VerificationError, match=f"{name} was changed"):
        verify_folder(folder)


def _other_weights(folder):
    proto = onnx.load(folder / WEB)
    kernel = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(kernel) * np.float32(1.5)
    kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    onnx.save(proto, folder / WEB)


def _other(entry):
    def change(folder):
        page = known(folder)
        page[entry] = page[entry][::-1]
        (folder / "network.json").write_text(json.dumps(page))

    return change


def _other_values(folder):
    page = known(folder)
    values = unpacked(page["check"]["outputs"]["keys"]) + np.float32(0.1)
    page["check"]["outputs"]["keys"] = packed(values)
    (folder / "network.json").write_text(json.dumps(page))


def _no_json(folder):
    (folder / "network.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_other_weights, "the page differs: (spikes of snu|the output keys)"),
        (_other("samples"), "has another samples"),
        (_other("states"), "has another states"),
        (_other_values, "has other outputs than Keras gives"),
        (_no_json, "network.json"),
    ],
)
def test_a_page_of_another_network_is_refused(exported, tmp_path, change, words):
    folder = copied(exported, tmp_path)
    change(folder)
    sums(folder)
    with pytest.raises(VerificationError, match=words):
        verify_folder(folder)


def test_a_network_that_cannot_stream_runs_whole(tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            LAYERS.Flatten(),
            RateCoding(5, seed=1),
            SNU(6, return_sequences=True, name="snu"),
            LAYERS.GlobalAveragePooling1D(name="mean"),
        ]
    )
    x = np.random.default_rng(0).random((20, 4, 3), "float32")
    samples = Samples("images", [[x]], [np.arange(20) % 6], "accuracy")
    report = export(model, tmp_path / "out", target="web", samples=samples)
    assert report.web.steps == "all" and "cannot stream" in report.web.reason
    assert report.verification.ok and report.verification.web.steps == 5 * MAX_SAMPLES
    page = known(tmp_path / "out")
    assert not page["keys"] and page["samples"][1]["name"] == "sample 2, class 1"
    assert np.array_equal(unpacked(page["samples"][2]), x[2])
    ends = {end.name for end in onnx.load(tmp_path / "out" / WEB).graph.output}
    assert ends == {page["outputs"][0]["name"], page["layers"][0]["tensor"]}


def test_small_whole_numbers_take_a_byte():
    for array, kind in (
        (np.array([[0.0, 1.0]], "float32"), "uint8"),
        (np.array([-1, 300], "int64"), "int32"),
        (np.array([2**40], "int64"), "int64"),
        (np.array([1e12, np.inf], "float32"), "float32"),
        (np.array([0.5], "float32"), "float32"),
    ):
        entry = packed(array)
        assert entry["type"] == kind and np.array_equal(unpacked(entry), array)


def test_two_inputs_are_refused_in_a_sentence(tmp_path):
    given = [keras.Input((5, 3), name=name) for name in ("left", "right")]
    both = SNU(4, return_sequences=True)(LAYERS.Concatenate()(given))
    with pytest.raises(BadInputError, match=r"one input\. Received: 2 \(left, right\)"):
        export(keras.Model(given, both), tmp_path / "out", target="web")
    assert not any(tmp_path.iterdir())


def test_batches_of_one_size_are_refused(tmp_path):
    model = keras.Sequential(
        [keras.Input(batch_shape=(3, None, 4)), SNU(4, return_sequences=True, stateful=True)]
    )
    with pytest.raises(BadInputError, match="The model takes batches of 3"):
        export(model, tmp_path / "out", target="web")
    assert not any(tmp_path.iterdir())


def test_the_command_without_a_runtime_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(runtime.VARIABLE)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))

    def offline(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    folder = tmp_path / "out"
    assert main(["zoo:jsb_snu", "--target", "web", "--output", str(folder)]) == 2
    error, hint = capsys.readouterr().err.strip().splitlines()
    assert "could not be downloaded: <urlopen error no network>" in error
    assert f"npm pack onnxruntime-web@{runtime.VERSION}" in hint and "--web-runtime" in hint
    assert not folder.exists() and not list((tmp_path / "home").rglob("*.tgz"))
    wrong = ["zoo:jsb_snu", "--target", "onnx", "--web-runtime", "x", "--output", str(folder)]
    assert main(wrong) == 2 and "--web-runtime is for --target web" in capsys.readouterr().err


def test_a_runtime_for_another_target_is_an_error(tmp_path):
    with pytest.raises(BadInputError, match="web_runtime is for target"):
        export(music(), tmp_path / "out", target="onnx", web_runtime=tmp_path)


def archive(stand_in, path):
    with tarfile.open(path, "w:gz") as out:
        for name in WEB_RUNTIME:
            out.add(stand_in / name, f"package/dist/{name}")
    return path


def test_where_a_runtime_may_be(stand_in, tmp_path):
    wanted = {name: (stand_in / name).read_bytes() for name in WEB_RUNTIME}
    modules = tmp_path / "node_modules" / "onnxruntime-web"
    modules.mkdir(parents=True)
    (modules / "dist").symlink_to(stand_in)
    places = (stand_in, stand_in.parent, tmp_path, archive(stand_in, tmp_path / "runtime.tgz"))
    for place in places:
        assert runtime.find(place) == wanted
    assert runtime.find() == wanted  # what the variable names


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "There is no"),
        (lambda path: path.mkdir(), "does not hold ort.wasm"),
        (lambda path: path.write_bytes(b"no archive"), "is no archive of onnxruntime-web"),
    ],
)
def test_a_runtime_that_is_none_is_refused(tmp_path, make, words):
    make(tmp_path / "place")
    with pytest.raises(BadInputError, match=words) as caught:
        runtime.find(tmp_path / "place")
    assert "npm pack" in caught.value.hint


def test_another_version_is_refused(stand_in, tmp_path):
    for name in WEB_RUNTIME:
        (tmp_path / name).write_bytes((stand_in / name).read_bytes() + b" ")
    with pytest.raises(
        BadInputError, match=r"Its sha256 must be [0-9a-f]{64}\. Received: [0-9a-f]{64}"
    ):
        runtime.find(tmp_path)


def test_a_download_is_kept_only_if_it_is_the_archive(stand_in, tmp_path, monkeypatch):
    data = archive(stand_in, tmp_path / "sent.tgz").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data if self.path == "/good" else data[:-1] + b"x")

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.delenv(runtime.VARIABLE)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))

        def source(path):
            return _fetch.Source(
                name="runtime.tgz",
                url=f"http://127.0.0.1:{server.server_port}/{path}",
                size=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )

        monkeypatch.setattr(runtime, "ARCHIVE", source("bad"))
        with pytest.raises(BadInputError, match=r"is not runtime\.tgz: sha256"):
            runtime.find()
        cached = _fetch.cache_folder() / "runtime.tgz"
        assert not cached.exists()
        monkeypatch.setattr(runtime, "ARCHIVE", source("good"))
        assert set(runtime.find()) == set(WEB_RUNTIME) and cached.read_bytes() == data
        server.shutdown()
    assert set(runtime.find()) == set(WEB_RUNTIME)  # from the cache, without the server
