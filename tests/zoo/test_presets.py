"""Presets: those that ship, and what is refused of a damaged one."""

import json
import shutil

import keras
import numpy as np
import pytest

import snukeras
from snukeras.zoo import cards, presets, recipes
from snukeras.zoo.tasks import TASKS

# Models that have to be in the package. A new one is added here.
SHIPPED = ["jsb_snu", "jsb_ssnu"]


def test_shipped_models_are_listed():
    assert set(SHIPPED) <= set(snukeras.zoo.list())


@pytest.mark.parametrize("name", snukeras.zoo.list())
def test_shipped_model_gives_its_golden_output(name):
    assert presets.verify(name) <= presets.GOLDEN_TOLERANCE


@pytest.mark.parametrize("name", snukeras.zoo.list())
def test_shipped_model_is_documented_by_its_results(name):
    """Card, preset and results say the same, and come from the recipe beside them."""
    info = snukeras.zoo.info(name)
    results = info["results"]
    assert recipes.check(results["recipe"]) == recipes.read(name)
    best = next(s for s in results["seeds"] if s["seed"] == results["best_seed"])
    pick = min if TASKS[info["task"]].lower_is_better else max
    assert best["valid"] == pick(seed["valid"] for seed in results["seeds"])
    assert (info["seed"], info["valid"], info["test"]) == (
        best["seed"],
        best["valid"],
        best["test"],
    )
    assert info["parameters"] == results["parameters"]
    card = presets.content_folder() / name / cards.CARD
    assert card.read_text("utf-8") == cards.card(name)


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
    assert snukeras.zoo.list(content) == ["tiny"]
    assert snukeras.zoo.list(tmp_path) == []


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
    x = np.ones((2, 3, 88), np.float32)
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
    from snukeras.zoo import _files

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
