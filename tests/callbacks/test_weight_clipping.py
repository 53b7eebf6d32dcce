"""Weights clipped while they are trained, and sizes of columns moved into output scales."""

import keras
import numpy as np
import pytest

from snukeras.callbacks import ClipWeights, Remap
from snukeras.layers import SNU
from snukeras.pcm import Chip, IdealDevice, Tile, analog

RANDOM = np.random.default_rng(0)
X = RANDOM.random((16, 5, 12)).astype("float32")
Y = RANDOM.random((16, 5, 3)).astype("float32")


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5, 12)),
            SNU(20, return_sequences=True, threshold=0.3, name="units"),
            keras.layers.Dense(3, name="out"),
        ]
    )
    model.get_layer("out").kernel.assign(RANDOM.standard_t(2, (20, 3)))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("scale", ["column", "tensor"])
def test_weights_beyond_are_clipped_after_each_step(scale):
    model = network()
    kernel = model.get_layer("out").kernel
    before = model.get_weights()
    model.fit(X, Y, batch_size=16, epochs=1, verbose=0)
    free = kernel.numpy()
    model.set_weights(before)
    model.fit(X, Y, batch_size=16, epochs=1, verbose=0, callbacks=[ClipWeights(1.0, scale)])
    limit = np.sqrt(np.mean(free**2, axis=0 if scale == "column" else None))
    np.testing.assert_allclose(kernel.numpy(), np.clip(free, -limit, limit), rtol=1e-4, atol=1e-6)
    assert np.any(np.abs(free) > limit)


@pytest.mark.slow
def test_output_scales_are_trained_and_take_the_size_of_columns(tmp_path):
    net = analog(network(), Tile(8, 8, None, None), output_scales=True)
    # Scales multiply weights, so that larger steps would grow without end.
    net.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=False)
    scales = [tiles.scale for tiles in net.tiles]
    net.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=[Remap(every=2, largest=0.5)])
    kernel = net.get_layer("out").kernel.numpy()
    np.testing.assert_allclose(np.abs(kernel).max(axis=0), 0.5, rtol=1e-5)
    given = net.predict(X, verbose=0)
    net.remap(2.0)
    np.testing.assert_allclose(net.predict(X, verbose=0), given, atol=1e-5)
    last = net.tiles[-1].scale.numpy()
    net.fit(X, Y, batch_size=16, epochs=1, verbose=0)
    assert np.all(net.tiles[-1].scale.numpy() != last)
    assert all(any(scale is v for v in net.trainable_variables) for scale in scales)

    given = net.predict(X, verbose=0)
    net.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(again.predict(X, verbose=0), given, atol=1e-6)
    # The plain model has them in its weights, a chip behind its converters.
    np.testing.assert_allclose(net.digital().predict(X, verbose=0), given, atol=1e-5)
    on_chip = Chip(net, IdealDevice(), seed=1).model()
    np.testing.assert_allclose(on_chip.predict(X, verbose=0), given, atol=1e-4)


def test_what_they_cannot_serve():
    with pytest.raises(ValueError, match="`deviations`"):
        ClipWeights(0.0)
    with pytest.raises(ValueError, match="`scale` must be one of 'tensor', 'column'"):
        ClipWeights(2.0, "layer")
    with pytest.raises(ValueError, match="`every`"):
        Remap(0)
    with pytest.raises(ValueError, match="Remap needs a network of snukeras"):
        network().fit(X, Y, verbose=0, callbacks=[Remap()])
    with pytest.raises(ValueError, match="`remap` needs a network with output scales"):
        analog(network(), "ideal").remap()
    bare = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.1)])
    bare.compile("sgd", "mse")
    with pytest.raises(ValueError, match="ClipWeights needs a model with trainable matrices"):
        bare.fit(np.zeros((2, 3)), np.zeros((2, 3)), verbose=0, callbacks=[ClipWeights()])
