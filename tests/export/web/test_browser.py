"""The page in headless Chromium, with the real onnxruntime-web: it computes what Keras computes."""

import importlib.util
import json
import os
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from browser import Page, chromium, served

import snukeras
from snukeras.datasets import _fetch
from snukeras.export import export
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import run_onnx, session
from snukeras.export.verify.running import reset
from snukeras.export.web import runtime
from snukeras.layers import SNU, SSNU, ConvSNU1D, RateCoding

pytestmark = pytest.mark.slow
LAYERS = keras.layers
ROOT = Path(__file__).resolve().parents[3]
_BOUND = 1e-5
_STATUS = "document.querySelector('.snu-status').textContent"


@pytest.fixture(scope="module", autouse=True)
def tools():
    """Skip where Chromium or the runtime is missing; nothing is downloaded here."""
    chromium()
    cached = _fetch.cache_folder() / runtime.ARCHIVE.name
    if not os.environ.get(runtime.VARIABLE) and not cached.is_file():
        pytest.skip(
            f"needs onnxruntime-web {runtime.VERSION} (`npm pack onnxruntime-web@"
            f"{runtime.VERSION}`), named in {runtime.VARIABLE}"
        )


@pytest.fixture(scope="module")
def page():
    with Page() as page:
        yield page


@pytest.fixture(scope="module")
def chorales(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "jsb_snu"
    model = snukeras.zoo.load("jsb_snu")
    report = export(model, folder, target="web", int8="dynamic", name="zoo:jsb_snu")
    assert report.verification.ok
    return model, folder


def run(page, index):
    """Return what the network of the page gives for a sample, as arrays by name."""
    found = page.value(
        "import('./player.js').then(({ Network }) => Network.open('.')).then((n) => n.run("
        f"{index}))"
    )
    return [
        {name: np.asarray(steps, "float32") for name, steps in found[part].items()}
        for part in ("outputs", "layers")
    ]


def test_a_chorale_gives_what_keras_gives(page, chorales):
    model, folder = chorales
    _, rolls = snukeras.zoo.samples.read()
    with served(folder) as address:
        page.open(address)
        for index in (0, 5):
            x = rolls[index][None, :-1].astype("float32")
            outputs, layers = run(page, index)
            assert np.abs(outputs["keys"] - model.predict(x, verbose=0)[0]).max() <= _BOUND
            spikes = snukeras.trace(model, x)["snu"]["spikes"][0]
            assert spikes.any() and np.array_equal(layers["snu"], spikes)


def test_the_page_plays_and_shows(page, chorales, tmp_path):
    _, folder = chorales
    page.resize(1280)
    page.messages.clear()
    with served(folder) as address:
        page.open(address)
        page.wait("document.querySelector('[data-checked]')")
        page.wait("!document.querySelector('.snu-main').disabled")
        note = page.value("document.querySelector('.snu-note').textContent")
        assert "outputs equal Keras's within" in note and "0 of 4,650 spikes differ" in note
        assert page.value("document.title") == "jsb_snu in the browser"
        page.value("document.querySelectorAll('select')[1].value = '8'")
        page.value("document.querySelector('.snu-main').click()")
        page.wait(
            "/step ([5-9]|\\d\\d) of 31/.test(document.querySelector('.snu-status').textContent)"
        )
        assert page.value("document.querySelector('.snu-main').textContent") == "Pause"
        # Sound off, and stop.
        page.value("document.querySelector('input[type=checkbox]').click()")
        page.value("document.querySelector('.snu-main').click()")
        page.wait("document.querySelector('.snu-main').textContent === 'Play'")
        captions = page.value(
            "[...document.querySelectorAll('figcaption')].map((c) => c.textContent)"
        )
        assert captions[0] == "What it hears" and captions[1].startswith("Spikes of snu, 150 units")
        assert captions[2].startswith("Expected notes")
        assert "Surprise so far" in page.value("document.querySelector('.snu-figure').textContent")
        painted = page.value(
            "[...document.querySelectorAll('canvas')].map((c) => c.getContext('2d').getImageData("
            "40, 4, 60, c.height - 8).data.filter((v, n) => n % 4 == 3 && v).length)"
        )
        assert len(painted) == 3 and min(painted) > 50
        # To its end, and once more; stopped, it stays where it is.
        page.value("document.querySelectorAll('select')[1].add(new Option('faster', 40))")
        page.value("document.querySelectorAll('select')[1].value = '40'")
        page.value("document.querySelector('.snu-main').click()")
        page.wait(f"/step 31 of 31/.test({_STATUS})")
        page.wait("document.querySelector('.snu-main').textContent === 'Play'")
        page.value("document.querySelector('.snu-main').click()")
        page.wait(f"/step [3-9] of 31/.test({_STATUS})")
        page.value("document.querySelector('.snu-main').click()")
        page.wait("document.querySelector('.snu-main').textContent === 'Play'")
        stopped = page.value(_STATUS)
        time.sleep(0.2)
        assert page.value(_STATUS) == stopped
        # Another piece begins anew.
        page.value(
            "const s = document.querySelector('select'); s.value = 3;"
            "s.dispatchEvent(new Event('change'))"
        )
        page.wait(f"/^\\d+ steps$/.test({_STATUS})")
        for width in (1280, 390):
            page.resize(width)
            assert page.value("document.documentElement.scrollWidth") <= width
            page.picture(tmp_path / f"{width}.png")
            assert (tmp_path / f"{width}.png").stat().st_size > 10_000
    assert page.messages == []


def test_the_whole_form_and_the_int8_form_run_in_the_browser(page, chorales):
    _, folder = chorales
    x = np.load(folder / "samples.npz")["0.input.0"]
    with served(folder) as address:
        page.open(address)
        for name in ("model.onnx", "model-int8.onnx"):
            expected = run_onnx(session(str(folder / name)), [x])["keys"]
            got = page.value(
                f"import('./{runtime.SCRIPT}').then(async (ort) => {{"
                "ort.env.wasm.numThreads = 1;"
                f"const session = await ort.InferenceSession.create('./{name}');"
                f"const x = new ort.Tensor('float32', {x.ravel().astype(int).tolist()},"
                f" {list(x.shape)});"
                "return Array.from((await session.run({piano_roll: x})).keys.data); })"
            )
            assert np.abs(np.reshape(got, expected.shape) - expected).max() <= _BOUND, name


def classifier():
    return keras.Sequential(
        [
            keras.Input((5, 6, 1), name="image"),
            LAYERS.Flatten(),
            RateCoding(7, seed=1),
            SNU(9, return_sequences=True, name="snu"),
            LAYERS.GlobalAveragePooling1D(name="mean"),
        ]
    )


def soft():
    return keras.Sequential(
        [
            keras.Input((None, 6), name="x"),
            SSNU(8, return_sequences=True, recurrent=True, name="soft"),
            LAYERS.Dense(3, activation="softmax", name="y"),
        ]
    )


def maps():
    return keras.Sequential(
        [
            keras.Input((None, 8, 2), name="x"),
            ConvSNU1D(3, 3, padding="same", return_sequences=True, name="conv"),
            LAYERS.TimeDistributed(LAYERS.Flatten()),
            LAYERS.LSTM(5, return_sequences=True),
            LAYERS.Dense(2, name="y"),
        ]
    )


def stateful():
    return keras.Sequential(
        [
            keras.Input(batch_shape=(1, 9, 4), name="x"),
            SNU(8, return_sequences=True, stateful=True, threshold=0.1, name="first"),
            SNU(6, stateful=True, threshold=0.1, name="last"),
            LAYERS.Dense(3, name="y"),
        ]
    )


def words():
    tokens = keras.Input((None,), dtype="int32", name="words")
    x = LAYERS.Embedding(20, 6, mask_zero=True)(tokens)
    x = LAYERS.Bidirectional(SNU(8, return_sequences=True, threshold=0.1), name="both")(x)
    return keras.Model(tokens, LAYERS.Dense(3, name="y")(x))


@pytest.mark.parametrize("make", [classifier, soft, maps, stateful, words])
def test_other_networks_show_their_samples(page, tmp_path, make):
    keras.utils.set_random_seed(1)
    model, folder = make(), tmp_path / "out"
    report = export(model, folder, target="web", seed=2)
    assert report.verification.ok
    samples = Samples.load(folder / "samples.npz").batches[0][0]
    index = len(samples) - 1
    page.resize(1280)
    page.messages.clear()
    with served(folder) as address:
        page.open(address)
        page.wait("document.querySelector('[data-checked]')")
        outputs, layers = run(page, index)
        reset(model)
        expected = model.predict(samples[index:], verbose=0)[0]
        (got,) = outputs.values()
        assert np.abs((got if len(got) == len(expected) else got[-1]) - expected).max() <= _BOUND
        page.wait("!document.querySelector('.snu-main').disabled")
        for _ in range(3):
            page.value("document.querySelectorAll('.snu-controls button')[1].click()")
        page.wait("document.querySelectorAll('canvas').length >= 2")
        assert page.value("document.querySelector('.snu-problem')") is None
        assert len(layers) == len(report.verification.onnx.units)
    assert page.messages == []


def test_a_page_that_lacks_a_file_says_so(page, chorales, tmp_path):
    for path in chorales[1].iterdir():
        if path.name != "model-web.onnx":
            (tmp_path / path.name).symlink_to(path)
    with served(tmp_path) as address:
        page.open(address)
        page.wait("document.querySelector('.snu-problem')")
        said = page.value("document.querySelector('.snu-problem').textContent")
        assert said == "The network could not be run: /model-web.onnx cannot be read (404)."


def module(name):
    path = ROOT / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"docs_{name}", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_front_page_plays_two_networks(page, tmp_path):
    pytest.importorskip("mkdocs")
    hooks = module("hooks")
    module("front_page").build(tmp_path / "try", runtime.find())
    text = (ROOT / "docs" / "index.md").read_text("utf-8")
    (picture,) = hooks._PLAYER.findall(text)
    html = hooks._PLAYER_HTML.format(picture=picture)
    head = '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    (tmp_path / "index.html").write_text(f"<!DOCTYPE html><title>front</title>{head}{html}")
    page.messages.clear()
    with served(tmp_path) as address:
        page.resize(1280)
        page.open(address)
        page.wait("document.querySelector('.snu-main')")
        # Until somebody presses Play nothing is loaded, and the picture stays.
        assert "jsb_snu.png" in page.value("document.querySelector('.snu-still').textContent")
        assert page.value("document.querySelectorAll('canvas').length") == 0
        page.value("document.querySelector('.snu-main').click()")
        page.wait(f"/step [3-9] of 31/.test({_STATUS})")
        assert page.value("document.querySelector('.snu-still')") is None
        checked = json.loads(page.value("document.querySelector('[data-checked]').dataset.checked"))
        assert [found["different"] for found in checked] == [0, 0]
        assert max(found["worst"] for found in checked) <= _BOUND
        titles = page.value("[...document.querySelectorAll('h3')].map((h) => h.textContent)")
        assert titles == ["As trained", "On a chip, a year later"]
        captions = page.value(
            "[...document.querySelectorAll('figcaption')].map((c) => c.textContent)"
        )
        assert len(captions) == 5 and "% differ, orange" in captions[3]
        page.resize(390)
        assert page.value("document.documentElement.scrollWidth") <= 390
        page.value("document.querySelector('.snu-main').click()")
    assert page.messages == []
