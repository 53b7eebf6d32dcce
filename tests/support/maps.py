"""Small sets of weights and the maps of them, for the tests of the exporter."""

import keras
import numpy as np
from networks import TEXTS

from snukeras.export.crossbar.description import Source
from snukeras.export.crossbar.load import load_map
from snukeras.export.crossbar.targets import load_target
from snukeras.export.crossbar.writer import MapOptions, write_map
from snukeras.export.samples import Samples
from snukeras.layers import SNU
from snukeras.network.matrices import Unrolling
from snukeras.network.weights import Weight, collect, digest


def matrix(name, values):
    layer, role = name.rsplit("/", 1)
    return Weight(name, layer, role, np.asarray(values, "float32"), Unrolling())


def parameter(name, values):
    layer, role = name.rsplit("/", 1)
    return Weight(name, layer, role, np.asarray(values, "float32"), None)


def jsb(seed=0):
    r = np.random.default_rng(seed)
    return [
        matrix("snu/kernel", r.normal(size=(88, 150))),
        parameter("snu/threshold", np.ones(150)),
        parameter("snu/decay", np.full(150, 0.8)),
        matrix("dense/kernel", r.normal(size=(150, 88))),
        parameter("dense/bias", np.zeros(88)),
    ]


def of_rolls():
    """A small network for rolls of 20 keys."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None, 20)),
            SNU(30, return_sequences=True, threshold=0.3, name="snu"),
            keras.layers.Dense(20, activation="sigmoid", name="out"),
        ]
    )


def rolls(seed):
    """Samples for it, with their targets."""
    random = np.random.default_rng(seed)
    songs = [(random.random((9, 20)) < 0.2).astype("float32") for _ in range(3)]
    return Samples.songs(songs, "rolls")


def written(path, weights, target=None, **options):
    """A map of weights, written and read; options are those of MapOptions."""
    write_map(path, weights, target or load_target("pcm"), MapOptions(**options), **TEXTS)
    return load_map(path)


def mapped(path, model, target="pcm", **options):
    """The map of a model, by the name of a target or a Target."""
    weights = collect(model)
    target = load_target(target) if isinstance(target, str) else target
    source = Source("x", None, digest(weights))
    write_map(path, weights, target, MapOptions(**options), source=source, onnx=TEXTS["onnx"])
    return load_map(path)
