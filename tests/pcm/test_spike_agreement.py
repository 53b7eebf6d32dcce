"""Deep spiking networks on coarse tiles: calibration says that their spikes are others."""

import warnings

import keras
import numpy as np
import pytest

from snukeras.layers import SNU
from snukeras.pcm import InputConverter, OutputConverter, Tile, analog, calibrate, spike_agreement

X = (np.random.default_rng(0).random((8, 12, 20)) < 0.3).astype("float32")


def network(layers):
    keras.utils.set_random_seed(0)
    units = [SNU(20, return_sequences=True, threshold=0.2, name=f"u{i}") for i in range(layers)]
    return keras.Sequential([keras.Input((None, 20)), *units, keras.layers.Dense(3)])


def tile(bits):
    return Tile(256, 256, InputConverter(8), OutputConverter(bits))


@pytest.mark.slow
def test_the_user_is_told():
    model = network(5)
    with pytest.warns(UserWarning, match=r"only [0-9]+% of the spikes of 'u[0-9]' are those"):
        net = analog(model, tile(2))
        calibrate(net, X)
    found = spike_agreement(net, X)
    assert list(found) == [f"u{i}" for i in range(5)]
    # Written out: what either has, and what both have.
    exact, tiled = (m.predict(X, verbose=0) for m in (model, net))
    assert np.abs(exact - tiled).max() > 0.1 and min(found.values()) < 0.5
    first = [keras.Model(m.inputs, m.layers[0].output) for m in (model, net.network)]
    one, other = (keras.ops.convert_to_numpy(m(X)) > 0 for m in first)
    assert found["u0"] == pytest.approx((one & other).sum() / (one | other).sum())


def test_fine_tiles_are_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        net = analog(network(2), tile(12))
        calibrate(net, X)
        assert min(spike_agreement(net, X).values()) > 0.95
        plain = keras.Sequential([keras.Input((20,)), keras.layers.Dense(3)])
        soft = analog(plain, tile(2))
        calibrate(soft, X[:, 0])
    assert spike_agreement(soft, X[:, 0]) == {}
    with pytest.raises(TypeError, match="`net` must be an analog network"):
        spike_agreement(plain, X)
