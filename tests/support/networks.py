"""Compare ONNX Runtime with Keras, for the tests of the exporter."""

import keras
import numpy as np

from snukeras.export.crossbar.description import OnnxFile, Source
from snukeras.export.network import Network
from snukeras.export.onnx.build import to_onnx
from snukeras.export.verify.onnx import compare_onnx, run_onnx, session
from snukeras.layers import SNU, LogMel

LAYERS = keras.layers
# What a map says of where it comes from.
TEXTS = {"source": Source("x", None, "0" * 64), "onnx": OnnxFile("model.onnx", "1" * 64)}


def sequences(batch=3, time=13, features=6, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, time, features)).astype("float32")


def holes(x, seed=1):
    """Some steps, and all of one sample, set to zero, so that Masking leaves them out."""
    x = x.copy()
    x[np.random.default_rng(seed).random(x.shape[:2]) < 0.4] = 0.0
    x[1] = 0.0
    return x


def compared(model, samples, proto=None):
    """What ONNX Runtime and Keras have in common on samples."""
    proto = to_onnx(model) if proto is None else proto
    return compare_onnx(Network.read(model), proto.SerializeToString(), samples).result


def difference(model, *inputs):
    """Largest difference over all outputs, which must agree in shape; and the ONNX model."""
    proto = to_onnx(model)
    got = list(run_onnx(session(proto.SerializeToString()), list(inputs)).values())
    expected = keras.tree.flatten(model(list(inputs) if len(inputs) > 1 else inputs[0]))
    worst = 0.0
    for a, b in zip(got, expected, strict=False):
        b = keras.ops.convert_to_numpy(b)
        assert a.shape == b.shape and a.dtype == b.dtype
        worst = max(worst, float(np.abs(a.astype("float64") - b).max()))
    return worst, proto


def unit(cls, filters=3, window=3, **options):
    """A convolutional unit with drawn weights, and a decay and threshold for each filter."""
    normal = keras.initializers.RandomNormal
    defaults = {
        "decay": np.linspace(0.2, 0.9, filters),
        "threshold": np.linspace(0.1, 0.6, filters),
        "kernel_initializer": normal(0, 0.5, seed=1),
        "implementation": "cell",
        "return_sequences": True,
    }
    if options.get("recurrent"):
        defaults["recurrent_initializer"] = normal(0, 0.2, seed=2)
    if options.get("use_bias"):
        defaults["bias_initializer"] = normal(0, 0.3, seed=3)
    return cls(filters, window, **{**defaults, **options})


def ear(*layers, samples=None):
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((samples,), name="sound"), *layers])


def speech(**arguments):
    model = ear(
        LogMel(20, frame_length=200, frame_step=100, name="frames"),
        keras.layers.BatchNormalization(name="norm"),
        SNU(12, decay=0.8, threshold=0.2, return_sequences=True, name="units"),
        keras.layers.GlobalAveragePooling1D(name="rate"),
        keras.layers.BatchNormalization(name="rates"),
        keras.layers.Dense(4, activation="softmax", name="digit"),
        **arguments,
    )
    model.get_layer("norm").moving_mean.assign(np.full(20, 4.0, "float32"))
    return model
