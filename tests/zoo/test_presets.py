"""Presets: those that ship, and what is refused of a damaged one."""

import json
import shutil

import keras
import numpy as np
import pytest
from tiny_zoo import make_task

import snukeras
from snukeras.export import load_map, load_target, to_onnx
from snukeras.export.crossbar.description import OnnxFile, Source
from snukeras.export.crossbar.writer import write_map
from snukeras.network.weights import collect, digest
from snukeras.zoo import presets, recipes
from snukeras.zoo.publishing import cards, publish
from snukeras.zoo.tasks import TASKS

# Models that have to be in the package. A new one is added here.
SHIPPED = [
    "jsb_gru",
    "jsb_lstm",
    "jsb_rnn",
    "jsb_snu",
    "jsb_snu_chip",
    "jsb_snu_chip4",
    "jsb_snu_loop_pcm",
    "jsb_snu_pcm",
    "jsb_ssnu",
    "mnist_gru",
    "mnist_lstm",
    "mnist_rnn",
    "mnist_snu",
    "mnist_snu_7layers",
    "mnist_snu_chip",
    "mnist_snu_conv",
    "mnist_snu_pcm",
    "mnist_ssnu",
    "mnist_ssnu_pcm",
    "nottingham_lstm",
    "nottingham_snu",
    "nottingham_ssnu",
    "ptb_lstm",
    "ptb_snu",
    "ptb_ssnu",
    "speech_gru",
    "speech_lstm",
    "speech_snu",
    "speech_snu_chip",
    "speech_snu_pcm",
    "speech_ssnu",
]
SPIKING = ("SNU", "ConvSNU1D", "ConvSNU2D")


def test_all_presets_together_stay_small():
    files = presets.content_folder().rglob("*")
    assert sum(file.stat().st_size for file in files if file.is_file()) < 60e6


def test_shipped_models_are_listed():
    assert set(SHIPPED) <= set(snukeras.zoo.list())


@pytest.mark.some_cases(4)
@pytest.mark.parametrize("name", snukeras.zoo.list())
def test_shipped_model_gives_its_golden_output(name):
    assert presets.verify(name) <= presets.GOLDEN_TOLERANCE


@pytest.mark.parametrize("name", snukeras.zoo.list())
def test_shipped_model_is_documented_by_its_results(name):
    """Card, preset and results say the same, and come from the recipe beside them."""
    info = snukeras.zoo.info(name)
    results = info["results"]
    recipe = recipes.read(name)
    trained, now = recipes.check(results["recipe"]).record(), recipe.record()
    for text in ("title", "description", "notes"):  # may be worded anew
        trained.pop(text), now.pop(text)
    assert trained == now
    for other in (entry["model"] for entry in (recipe.start, recipe.teacher) if entry):
        assert other in snukeras.zoo.list()
    best = next(s for s in results["seeds"] if s["seed"] == results["best_seed"])
    pick = min if TASKS[info["task"]].lower_is_better else max
    judged = "valid_on_chips" if recipe.analog else "valid"
    assert best[judged] == pick(seed[judged] for seed in results["seeds"])
    assert (info["seed"], info["valid"], info["test"]) == (
        best["seed"],
        best["valid"],
        best["test"],
    )
    assert info["parameters"] == results["parameters"]


@pytest.mark.some_cases(6)
@pytest.mark.parametrize("name", snukeras.zoo.list())
def test_shipped_model_has_a_complete_card(name):
    card = (presets.content_folder() / name / cards.CARD).read_text("utf-8")
    assert card == cards.card(name), "run: snukeras-zoo measure"
    for row in (
        "| task |",
        "| network |",
        "| parameters |",
        "| test, ",
        "| these weights |",
        "| operations a step, dense |",
        "| operations a step, zeros skipped |",
        "| PCM devices |",
        "| training |",
        "| licence of the weights |",
        "| licence of the data |",
        "## Beside the other models of this task",
        "## Use",
        "| seed | epoch |",
        "- optimizer: ",
        "Data: sha256 ",
    ):
        assert row in card, row
    info = snukeras.zoo.info(name)
    assert ("\n| published |" in card) == bool(info["published"])
    network = json.dumps(info["recipe"]["network"])
    assert ("| spikes |" in card) == any(f'"{kind}"' in network for kind in SPIKING)


@pytest.mark.some_cases(6)
@pytest.mark.parametrize("name", snukeras.zoo.list())
def test_shipped_model_exports(name, tmp_path):
    """ONNX Runtime gives the golden output, and the map holds two devices for each weight."""
    import onnxruntime

    model = snukeras.zoo.load(name)
    given, expected = presets.golden(name)
    proto = to_onnx(model)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    feeds = {session.get_inputs()[0].name: given}
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, atol=1e-4)
    counted = snukeras.zoo.info(name)["results"]["costs"]
    weights = collect(model, embedding="/embeddings" in json.dumps(counted["matrices"]))
    matrices = [weight for weight in weights if weight.matrix]
    assert 2 * sum(weight.values.size for weight in matrices) == counted["pcm_devices"]
    write_map(
        tmp_path / "a.snumap",
        weights,
        load_target("pcm"),
        source=Source(name, None, digest(weights)),
        onnx=OnnxFile("model.onnx", "0" * 64),
    )
    back = load_map(tmp_path / "a.snumap", check=False).weights()
    for weight in matrices:
        worst = np.abs(back[weight.name] - weight.values).max()
        assert worst <= 1e-5 * np.abs(weight.values).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in snukeras.zoo.list() if name.startswith("jsb_")])
def test_shipped_figures_are_measured_again(name, data_folder):
    for measured, shipped in publish.evaluate(name).values():
        assert abs(measured - shipped) <= TASKS["jsb_chorales"].tolerance


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in snukeras.zoo.list() if name.startswith("nottingham_")]
)
def test_shipped_figures_of_larger_data_are_measured_again(name, data_folder):
    for measured, shipped in publish.evaluate(name).values():
        assert abs(measured - shipped) <= TASKS["nottingham"].tolerance


@pytest.mark.parametrize("name", snukeras.zoo.list())
def test_shipped_config_says_nothing_an_older_keras_refuses(name):
    """Keras 3.15 writes arguments that 3.8 does not know; all that are not used are None."""
    config = json.loads((presets.content_folder() / name / presets.CONFIG).read_text("utf-8"))
    for layer in config["config"]["layers"]:
        initializer = layer["config"].get("kernel_initializer", {"config": {}})
        if layer["module"].startswith("keras"):
            assert None not in layer["config"].values()
        assert None not in initializer["config"].values()


def test_list(small_zoo, tmp_path):
    content, _ = small_zoo
    assert snukeras.zoo.list(content=content) == ["tiny"]
    assert snukeras.zoo.list(content=tmp_path) == []
    for folder in (content, str(content)):
        with pytest.warns(FutureWarning, match="as content="):
            assert snukeras.zoo.list(folder) == ["tiny"]


def test_list_some():
    names = ["jsb_snu", "jsb_snu_chip", "jsb_snu_chip4", "jsb_snu_loop_pcm", "jsb_snu_pcm"]
    assert snukeras.zoo.list("jsb_snu*") == names
    assert snukeras.zoo.list(task="penn_treebank", unit="lstm") == ["ptb_lstm"]
    assert snukeras.zoo.list("*_pcm", unit="SSNU") == ["mnist_ssnu_pcm"]
    assert snukeras.zoo.list("nothing*") == []
    with pytest.raises(ValueError, match=r"no unit .* named 'SNUU'.*SNU"):
        snukeras.zoo.list(unit="SNUU")
    with pytest.raises(ValueError, match=r"no task .* named 'jsb'.*jsb_chorales"):
        snukeras.zoo.list(task="jsb")


def test_a_notebook_shows_the_list_as_a_table(small_zoo):
    html = snukeras.zoo.list(content=small_zoo[0])._repr_html_()
    assert "1 pretrained models" in html and "88 - SNU 6 - Dense 88" in html and "1,156" in html
    of_jsb = snukeras.zoo.list("jsb_*")
    assert of_jsb._repr_html_().count("<tr>") == 1 + len(of_jsb)


def test_load(small_zoo):
    content, _ = small_zoo
    model = snukeras.zoo.load("tiny", content=content)
    assert isinstance(model, keras.Model) and not model.compiled
    assert model.input_shape == (None, None, 88) and model.output_shape == (None, None, 88)
    given, expected = presets.golden("tiny", content)
    np.testing.assert_allclose(model.predict(given, verbose=0), expected, atol=1e-6)
    assert presets.verify("tiny", content) <= 1e-6


def test_golden_output_is_of_a_real_chorale(small_zoo):
    given, expected = presets.golden("tiny", small_zoo[0])
    assert given.shape == expected.shape and given.shape[0] == 1 and given.shape[1] >= 32
    assert given.sum(axis=-1).max() == 4


def test_load_without_weights(small_zoo):
    content, _ = small_zoo
    trained = snukeras.zoo.load("tiny", content=content)
    fresh = snukeras.zoo.load("tiny", weights=False, content=content)
    assert [w.shape for w in fresh.weights] == [w.shape for w in trained.weights]
    assert not np.allclose(fresh.weights[0], trained.weights[0])


def test_loaded_model_trains_further(small_zoo):
    model = snukeras.zoo.load("tiny", content=small_zoo[0])
    before = model.get_weights()[0].copy()
    model.compile("sgd", snukeras.losses.FrameNLL())
    (x, *_) = make_task().golden_inputs()
    model.fit(x, x, verbose=0)
    assert not np.array_equal(model.get_weights()[0], before)


def test_info(small_zoo):
    info = snukeras.zoo.info("tiny", small_zoo[0])
    assert info["task"] == "scales" and info["licence"] == "Apache-2.0"
    assert info["parameters"] == 88 * 6 + 2 * 6 + 6 * 88 + 88
    assert info["network"] == "88 - SNU 6 - Dense 88"
    assert set(info["files"]) == {"config.json", "model.weights.h5", "golden.npz"}
    assert info["recipe"]["epochs"] == 4
    assert [seed["seed"] for seed in info["results"]["seeds"]] == [0, 1]


@pytest.mark.parametrize("ask", [snukeras.zoo.load, snukeras.zoo.info])
def test_unknown_name_lists_what_exists(small_zoo, ask):
    with pytest.raises(ValueError, match=r"'tinny'. Did you mean tiny\? There are: tiny\."):
        ask("tinny", content=small_zoo[0])


def test_name_may_not_leave_the_folder(small_zoo):
    with pytest.raises(ValueError, match="no pretrained model named"):
        snukeras.zoo.load("../tiny", content=small_zoo[0])


@pytest.fixture
def copy(small_zoo, tmp_path):
    shutil.copytree(small_zoo[0], tmp_path / "zoo")
    return tmp_path / "zoo"


@pytest.mark.parametrize("file", ["config.json", "model.weights.h5", "golden.npz"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-10], "bytes instead of"),
        (lambda content: content[:50] + b"#" + content[51:], "sha256 [0-9a-f]+ instead of"),
        (None, "is missing"),
    ],
)
def test_damaged_file_is_refused_before_it_is_read(copy, file, damage, message):
    path = copy / "tiny" / file
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{file} .*{message}"):
        presets.verify("tiny", copy)


def test_weights_that_miss_the_golden_output(copy):
    """The sha256 may be right and the weights wrong for this version of the layers."""
    path = copy / "tiny" / "golden.npz"
    given, output = presets.golden("tiny", copy)
    np.savez(path, input=given, output=output + 0.001)
    pin(copy, "golden.npz")
    with pytest.raises(ValueError, match=r"misses its golden output by 0\.001"):
        presets.verify("tiny", copy)
    np.savez(path, input=given, output=output * np.nan)
    pin(copy, "golden.npz")
    with pytest.raises(ValueError, match="misses its golden output by nan"):
        presets.verify("tiny", copy)


def pin(content, file):
    from snukeras import _files

    preset = json.loads((content / "tiny" / "preset.json").read_text())
    path = content / "tiny" / file
    preset["files"][file] = {"sha256": _files.sha256_of(path), "bytes": path.stat().st_size}
    (content / "tiny" / "preset.json").write_text(json.dumps(preset))


def test_newer_format(copy):
    path = copy / "tiny" / "preset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(ValueError, match="format 2; this version of snukeras reads 1"):
        snukeras.zoo.load("tiny", content=copy)


def test_preset_that_is_no_json(copy):
    (copy / "tiny" / "preset.json").write_text("{")
    with pytest.raises(ValueError, match=r"preset\.json is not a JSON file"):
        snukeras.zoo.load("tiny", content=copy)


def test_weights_for_pcm_are_four_bits():
    model = snukeras.zoo.load("jsb_snu_pcm")
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    assert len(kernels) == 2
    for kernel in kernels:
        assert len(np.unique(kernel)) <= 15
        np.testing.assert_allclose(kernel.constraint.nearest(kernel), kernel, atol=1e-6)
