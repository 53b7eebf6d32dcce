"""Initializers: fluctuation-driven kernels, and calibration on data."""

import keras
import numpy as np
import pytest

import snukeras
from snukeras.constraints import PCMConstraint
from snukeras.initializers import FluctuationDriven, calibrate
from snukeras.layers import SNU, SSNU, ConvSNU2D, RateCoding


def spikes(shape, rate=0.1, seed=0):
    return (np.random.default_rng(seed).random(shape) < rate).astype("float32")


@pytest.mark.some_cases(8)
@pytest.mark.parametrize("rate, input_rate", [(0.25, None), (0.1, None), (0.25, 0.05), (0.1, 0.3)])
@pytest.mark.parametrize("g", ["relu", "linear"])
@pytest.mark.parametrize("decay, threshold", [(0.8, 0.5), (0.3, 2.0)])
def test_units_spike_at_the_target_rate(rate, input_rate, g, decay, threshold):
    initializer = FluctuationDriven(rate, input_rate, decay, threshold, g == "relu", seed=1)
    layer = SNU(
        2000, state_activation=g, decay=decay, threshold=threshold,
        kernel_initializer=initializer, return_sequences=True,
    )  # fmt: skip
    x = spikes((4, 40, 200), input_rate or rate)
    assert layer(x).numpy().mean() == pytest.approx(rate, rel=0.12)


def test_in_a_stack_of_layers_spikes_neither_die_out_nor_take_over():
    x = spikes((8, 20, 100), 0.05)
    rates = []
    for _ in range(8):
        x = SNU(200, return_sequences=True)(x)  # FluctuationDriven is its default
        rates.append(float(x.numpy().mean()))
    assert 0.05 < rates[0] < rates[2]
    assert min(rates[3:]) > 0.2 and max(rates[3:]) < 0.4


def test_a_decay_and_threshold_per_unit_scale_each_column():
    initializer = FluctuationDriven(decay=[0.0, 0.9], threshold=[1.0, 4.0], seed=1)
    kernel = keras.ops.convert_to_numpy(initializer((3, 3, 500, 2)))
    assert kernel.std(axis=(0, 1, 2)) == pytest.approx(initializer.deviation(4500), rel=0.05)
    assert initializer.deviation(100) == pytest.approx(10 * initializer.deviation(10000))
    with pytest.raises(ValueError, match="for 2 units"):
        initializer((5, 3))


def test_a_share_of_the_variance():
    whole, part = FluctuationDriven(), FluctuationDriven(share=0.25)
    assert part.deviation(100) == pytest.approx(whole.deviation(100) / 2)


def test_the_initializer_is_saved_by_its_arguments(tmp_path):
    layer = SNU(4, kernel_initializer=FluctuationDriven(0.2, 0.1, 0.6, 0.5, False, 7, share=0.3))
    model = keras.Sequential([keras.Input((None, 3)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0].kernel_initializer
    assert loaded.get_config() == layer.kernel_initializer.get_config()
    assert np.array_equal(loaded((3, 4)), layer.kernel_initializer((3, 4)))


@pytest.mark.parametrize("arguments", [
    {"rate": 0.5}, {"rate": 0}, {"input_rate": 0.0}, {"input_rate": 1.5}, {"decay": 1.1},
    {"decay": -0.1}, {"threshold": 0.0}, {"threshold": [1.0, float("nan")]}, {"share": 0.0},
    {"share": 1.5},
])  # fmt: skip
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        FluctuationDriven(**arguments)


def dense_network():
    return keras.Sequential(
        [keras.Input((20, 30)), *[SNU(40, return_sequences=True) for _ in range(3)]]
    ), spikes((32, 20, 30))


def functional_network():
    x = keras.Input((20, 30))
    a = SNU(40, return_sequences=True)(x)
    b = keras.layers.Bidirectional(SNU(20, return_sequences=True))(a)
    y = SNU(10, return_sequences=False)(keras.layers.Concatenate()([a, b]))
    return keras.Model(x, y), spikes((32, 20, 30))


def recurrent_network():
    layers = [SNU(40, return_sequences=True, recurrent=True, state_activation="linear")
              for _ in range(2)]  # fmt: skip
    return keras.Sequential([keras.Input((20, 30)), keras.layers.Masking(), *layers]), spikes(
        (32, 20, 30)
    )


def convolutional_network():
    return keras.Sequential([
        keras.Input((12, 12, 1)),
        RateCoding(10, seed=1),
        ConvSNU2D(8, 3, return_sequences=True),
        ConvSNU2D(8, 3, return_sequences=True, recurrent=True),
        keras.layers.Reshape((-1, 8 * 8 * 8)),
        SNU(10, return_sequences=True),
    ]), np.random.default_rng(0).random((16, 12, 12, 1)).astype("float32")  # fmt: skip


@pytest.mark.some_cases(1)
@pytest.mark.parametrize(
    "network", [dense_network, functional_network, recurrent_network, convolutional_network]
)
def test_calibration_reaches_the_rate_and_leaves_no_unit_silent_or_saturated(network):
    keras.utils.set_random_seed(1)
    model, x = network()
    reached = calibrate(model, x, rate=0.15)
    traced = snukeras.trace(model, x)
    assert set(reached) == set(traced)
    for name, values in traced.items():
        rates = values["spikes"].reshape(-1, values["spikes"].shape[-1]).mean(axis=0)
        assert rates.mean() == pytest.approx(0.15, abs=0.03), name
        assert rates.mean() == pytest.approx(reached[name], abs=0.01), name
        assert rates.min() > 0 and rates.max() < 0.95, name


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_inputs_in_any_unit_can_be_calibrated(scale):
    keras.utils.set_random_seed(1)
    x = scale * np.random.default_rng(0).standard_normal((32, 20, 30)).astype("float32")
    model = keras.Sequential([keras.Input((20, 30)), SNU(40, return_sequences=True)])
    (reached,) = calibrate(model, x, rate=0.1).values()
    assert reached == pytest.approx(0.1, abs=0.01)
    assert float(keras.ops.mean(model(x))) == pytest.approx(reached, abs=1e-3)


def two_inputs(unit):
    """A unit that two inputs share, one with a tenth of the spikes of the other."""
    a, b = keras.Input((20, 30)), keras.Input((20, 30))
    return keras.Model([a, b], [unit(a), unit(b)])


def its_own_output(unit):
    """A unit that is called on its own output, through another one."""
    x = keras.Input((20, 30))
    between = SNU(30, return_sequences=True)
    return keras.Model(x, SNU(10, return_sequences=True)(unit(between(unit(x)))))


@pytest.mark.parametrize("network", [two_inputs, its_own_output])
def test_a_shared_layer_has_the_rate_over_all_its_calls(network):
    keras.utils.set_random_seed(1)
    unit = SNU(30, return_sequences=True)
    model = network(unit)
    x = [spikes((32, 20, 30), 0.3), spikes((32, 20, 30), 0.03)][: len(model.inputs)]
    reached = calibrate(model, x, rate=0.15)
    traced = snukeras.trace(model, x)
    calls = {name: [v["spikes"] for key, v in traced.items() if key.split("@")[0] == name]
             for name in reached}  # fmt: skip
    assert len(calls[unit.name]) == 2
    for name, each in calls.items():
        rates = np.concatenate([np.asarray(c) for c in each]).reshape(-1, each[0].shape[-1])
        assert rates.mean() == pytest.approx(0.15, abs=0.05), name
        assert rates.mean() == pytest.approx(reached[name], abs=0.001), name
        assert rates.mean(axis=0).min() > 0 and rates.mean(axis=0).max() < 0.95, name


def test_a_shared_layer_in_front_leaves_each_unit_its_own_rate():
    keras.utils.set_random_seed(1)
    a, b, front = keras.Input((20, 30)), keras.Input((20, 30)), keras.layers.Dense(25)
    units = [SNU(30, return_sequences=True), SNU(20, return_sequences=True)]
    model = keras.Model([a, b], [units[0](front(a)), units[1](front(b))])
    reached = calibrate(model, [spikes((32, 20, 30)), spikes((32, 20, 30), 0.05)], rate=0.2)
    assert reached == pytest.approx({unit.name: 0.2 for unit in units}, abs=0.03)


@pytest.mark.slow
def test_calibration_counts_neither_masked_steps_nor_soft_units():
    keras.utils.set_random_seed(1)
    soft, snu = SSNU(20, return_sequences=True), SNU(30, return_sequences=True)
    model = keras.Sequential([keras.Input((None, 20)), keras.layers.Masking(), soft, snu])
    x = 0.1 + spikes((16, 10, 20))
    before = soft.get_weights()
    reached = calibrate(model, np.concatenate([x, np.zeros_like(x)], 1), rate=0.2)
    assert list(reached) == [snu.name]
    assert snukeras.trace(model, x)[snu.name]["spikes"].mean() == pytest.approx(0.2, abs=0.02)
    for old, new in zip(before, soft.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_calibrated_weights_are_on_the_levels_of_their_constraint():
    keras.utils.set_random_seed(1)
    constraint = PCMConstraint(rounding="nearest")
    layer = SNU(40, kernel_constraint=constraint)
    model = keras.Sequential([keras.Input((20, 30)), layer])
    calibrate(model, spikes((32, 20, 30)), rate=0.2)
    kernel = layer.cell.kernel
    np.testing.assert_allclose(constraint(kernel), kernel, atol=1e-6)


def test_a_stateful_layer_keeps_its_states():
    keras.utils.set_random_seed(1)
    layer = SNU(20, stateful=True, return_sequences=True)
    model = keras.Sequential([keras.Input(batch_shape=(4, 10, 15)), layer])
    calibrate(model, spikes((4, 10, 15), 0.3), rate=0.2)
    assert all(not np.any(state) for state in layer.states)


def test_what_cannot_be_calibrated_is_refused_and_left_as_it_was():
    keras.utils.set_random_seed(1)
    model, x = dense_network()
    before = model.get_weights()
    for rate in (0.0, 1.0, -0.1, True, "0.1", np.array([0.1, 0.2])):
        with pytest.raises(ValueError, match="rate"):
            calibrate(model, x, rate=rate)
    with pytest.raises(ValueError, match="nothing but zeros"):
        calibrate(model, np.zeros_like(x))
    with pytest.raises(ValueError, match="cannot reach the rate"):
        calibrate(model, x[:, :, :] * (np.arange(20) == 3)[:, None], rate=0.9)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    one = keras.Sequential([keras.Input((None, 5)), SNU(8)])
    with pytest.raises(ValueError, match="cannot reach the rate"):
        calibrate(one, -np.ones((1, 1, 5), "float32"))
    dense = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="no spiking layers"):
        calibrate(dense, np.ones((3, 5)))
