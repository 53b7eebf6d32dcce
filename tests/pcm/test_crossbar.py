"""Crossbars: exact without non-idealities, converters, IR drop against a circuit, compensation."""

import numpy as np
import pytest
import tensorflow as tf

from snukeras.pcm import (
    Converter,
    Crossbar,
    DifferentialPair,
    GenericPCM,
    IdealDevice,
    StuckDevices,
)


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(size=(70, 50)).astype("float32")


@pytest.mark.some_cases(3)
@pytest.mark.parametrize("tile_size", [(256, 256), (32, 16), (7, 50)])
@pytest.mark.parametrize("compensation", [None, "global", "column"])
@pytest.mark.parametrize("scale", ["tensor", "column"])
def test_ideal_crossbar_is_the_matrix_product(matrix, tile_size, compensation, scale):
    crossbar = Crossbar(
        matrix,
        IdealDevice(),
        DifferentialPair(25.0, 0.5, scale=scale),
        tile_size,
        compensation=compensation,
    )
    assert len(crossbar.tiles) == -(-70 // tile_size[0]) * -(-50 // tile_size[1])
    x = np.random.default_rng(1).normal(size=(3, 4, 70)).astype("float32")
    got = crossbar.matmul(x, t=1e6)
    np.testing.assert_allclose(got, x @ matrix, atol=2e-4)
    np.testing.assert_allclose(crossbar.weights(), matrix, atol=1e-5)


def test_converters_of_many_bits_change_little_and_of_few_bits_much(matrix):
    x = np.random.default_rng(1).normal(size=(20, 70)).astype("float32")
    errors = []
    for bits in (16, 8, 4):
        crossbar = Crossbar(
            matrix, input_converter=Converter(bits), output_converter=Converter(bits)
        )
        error = np.asarray(crossbar.matmul(x)) - x @ matrix
        errors.append(np.std(error) / np.std(x @ matrix))
    assert errors[0] < 1e-3 < errors[1] < 0.02 < 0.1 < errors[2]


def test_ir_drop_lowers_the_output(matrix):
    x = np.ones((1, 70), "float32")
    ideal = Crossbar(np.abs(matrix)).matmul(x)
    lossy = Crossbar(np.abs(matrix), wire_resistance=2.0).matmul(x)
    assert np.all(lossy < ideal) and np.all(lossy > 0.9 * ideal)


def test_compensation_restores_the_mean(matrix):
    year = 31536e3
    errors = {}
    for compensation in (None, "global", "column"):
        crossbar = Crossbar(matrix, GenericPCM(), compensation=compensation, seed=1)
        errors[compensation] = np.abs(crossbar.weights(year)).mean() / np.abs(matrix).mean()
    assert errors[None] < 0.6
    assert errors["global"] == pytest.approx(1.0, abs=0.03)
    assert errors["column"] == pytest.approx(1.0, abs=0.03)


def drifting(compensation, converter=None):
    """Inputs, a matrix, and its crossbar of devices that drift and do nothing else."""
    generator = np.random.default_rng(0)
    w = np.clip(generator.normal(size=(256, 64)), -10 / 3, 10 / 3).astype("float32")
    crossbar = Crossbar(
        w,
        GenericPCM(programming_noise=0, read_noise=0),
        output_converter=converter,
        compensation=compensation,
        seed=1,
    )
    return generator.normal(size=(64, 256)).astype("float32"), w, crossbar


def test_compensation_acts_behind_the_converter():
    year = 31536e3
    x, w, crossbar = drifting("global", Converter(4))
    crossbar.calibrate(x)
    step = crossbar.output_converter.bound / 7
    unit = crossbar.scales / crossbar.pair.span
    (factor,) = crossbar._factors(year)
    # What leaves the converter lies on its grid, whatever the factor.
    position = np.asarray(crossbar.matmul(x, year)) / np.asarray(factor) * unit / step
    np.testing.assert_allclose(position, np.round(position), atol=1e-3)
    assert np.asarray(factor) > 1.5
    wanted = x @ w
    errors = [np.std(crossbar.matmul(x, year) - wanted) / np.std(wanted)]
    # Were it before the converter, the steps would not grow with the factor.
    before = x @ crossbar.weights(year) * unit
    before = np.round(before / step) * step / unit
    errors.append(np.std(before - wanted) / np.std(wanted))
    assert errors[0] > 1.2 * errors[1]


@pytest.mark.slow
def test_noise_of_the_converter_grows_with_the_factor():
    year = 31536e3
    x, _, crossbar = drifting("column", Converter(noise=0.5))
    still = drifting("column")[2]
    noise = np.asarray(crossbar.matmul(x, year)) - np.asarray(still.matmul(x, year))
    factors = np.asarray(crossbar._factors(year)[0])
    unit = crossbar.scales / crossbar.pair.span
    np.testing.assert_allclose(noise.std(axis=0), 0.5 / unit * factors, rtol=0.3)


def test_factors_come_from_a_reading_of_their_own():
    """A factor from the reading that it corrects would cancel the noise of a single row."""
    device = GenericPCM(programming_noise=0, drift=0)
    for rows in (1, 8):
        matrix = np.ones((rows, 500), "float32")
        kinds = [
            Crossbar(matrix, device, compensation=kind, seed=1).weights(25.0)
            for kind in (None, "column")
        ]
        bare, helped = (np.std(weights.mean(axis=0)) for weights in kinds)
        # Three readings, of reference, factor and weights, each with the same noise.
        assert helped == pytest.approx(bare * 3**0.5, rel=0.15)


@pytest.mark.slow
def test_matmul_in_a_compiled_function_with_a_gradient(matrix):
    crossbar = Crossbar(
        matrix,
        GenericPCM(),
        tile_size=(32, 16),
        input_converter=Converter(6),
        output_converter=Converter(6, 4.0),
        compensation="column",
        seed=1,
    )
    x = np.random.default_rng(1).normal(size=(5, 70)).astype("float32")

    @tf.function(input_signature=[tf.TensorSpec((None, 70)), tf.TensorSpec(())])
    def compiled(x, t):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = crossbar.matmul(x, t)
            loss = tf.reduce_sum(y)
        return y, tape.gradient(loss, x)

    first, gradient = compiled(x, 86400.0)
    second, _ = compiled(x, 86400.0)
    assert not np.array_equal(first, second)  # fresh noise at every call
    eager = np.asarray(crossbar.matmul(x, 86400.0))
    assert np.corrcoef(first.numpy().ravel(), eager.ravel())[0, 1] > 0.98
    # Straight through the converters: the gradient of the product itself.
    wanted = np.tile(matrix.sum(axis=1), (5, 1))
    assert np.corrcoef(gradient.numpy().ravel(), wanted.ravel())[0, 1] > 0.95


def test_calibration_fixes_the_ranges(matrix):
    x = np.random.default_rng(1).normal(size=(20, 70)).astype("float32")
    crossbar = Crossbar(matrix, output_converter=Converter(8), input_converter=Converter(8))
    crossbar.calibrate(x)
    assert crossbar.input_converter.bound == pytest.approx(np.abs(x).max())
    unit = crossbar.scales / crossbar.pair.span
    assert crossbar.output_converter.bound == pytest.approx(
        np.abs(x @ matrix * unit).max(), rel=0.02
    )
    # A small input has fewer steps of a fixed range.
    small = 0.02 * x
    error = np.std(np.asarray(crossbar.matmul(small)) - small @ matrix) / np.std(small @ matrix)
    assert error > 0.05
    with pytest.raises(ValueError, match="must not all be 0"):
        crossbar.calibrate(np.zeros((3, 70)))


def test_a_scale_for_each_column_by_default(matrix):
    crossbar = Crossbar(matrix, GenericPCM(), seed=1)
    assert crossbar.pair.scale == "column" and crossbar.scales.shape == (50,)
    np.testing.assert_allclose(crossbar.targets.max(axis=(0, 1)), 25.0, rtol=1e-6)
    given = Crossbar(matrix, scales=np.float32(5.0))
    assert given.targets.max() == pytest.approx(5.0 * np.abs(matrix).max())


def test_stuck_devices_are_read_with_noise_and_do_not_drift():
    matrix = np.full((300, 4), 0.5, "float32")
    stuck = StuckDevices(plus=np.full(matrix.shape, 10.0))
    device = GenericPCM()
    crossbar = Crossbar(matrix, device, faults=stuck, seed=1)
    for t in (0.0, 31536e3):
        plus = crossbar.conductances(t)[0]
        assert plus.mean() == pytest.approx(10.0, rel=0.01)
        assert plus.std() == pytest.approx(10.0 * device.read_noise_std(10.0, t), rel=0.1)


def test_column_compensation_is_per_column():
    device = GenericPCM(programming_noise=0, read_noise=0)
    matrix = np.ones((64, 2), "float32")
    crossbar = Crossbar(matrix, device, compensation="column", seed=1)
    nu = np.array(crossbar.states[0].nu)
    nu[:, :, 0], nu[:, :, 1] = 0.02, 0.2
    crossbar.states = [crossbar.states[0]._replace(nu=nu.astype("float32"))]
    np.testing.assert_allclose(crossbar.weights(1e6), matrix, rtol=1e-4)
    uniform = Crossbar(matrix, device, compensation="global", seed=1)
    uniform.states = crossbar.states
    assert uniform.weights(1e6)[0, 0] > 1.5 > 0.5 > uniform.weights(1e6)[0, 1]


def test_drift_persists_and_a_new_programming_event_changes_it(matrix):
    crossbar = Crossbar(matrix, GenericPCM(read_noise=0), seed=1)
    first = crossbar.weights(1e5)
    np.testing.assert_array_equal(first, crossbar.weights(1e5))
    crossbar.program()
    assert not np.array_equal(first, crossbar.weights(1e5))


def test_both_devices_of_a_pair_are_noisy(matrix):
    g = Crossbar(matrix, GenericPCM(), seed=1).conductances()
    assert g.shape == (2, 70, 50)
    resting = np.where(matrix > 0, g[1], g[0])
    assert resting.mean() == pytest.approx(0.107, rel=0.1)


def test_faults_are_avoided_as_far_as_possible(matrix):
    pair = DifferentialPair(25.0)
    stuck = StuckDevices.random(matrix.shape, pair, reset=0.05, set=0.05, seed=1)
    errors = {}
    for avoid in (False, True):
        crossbar = Crossbar(matrix, pair=pair, faults=stuck, avoid_faults=avoid)
        errors[avoid] = np.abs(crossbar.weights() - matrix).mean()
        assert np.all(crossbar.conductances()[0][stuck.plus == 25.0] == 25.0)
    assert errors[True] < 0.5 * errors[False]


def test_zero_matrix():
    assert np.all(Crossbar(np.zeros((4, 3))).weights() == 0)
    noisy = Crossbar(np.zeros((4, 3)), GenericPCM(), compensation="column", seed=1)
    assert np.all(np.isfinite(noisy.weights(1e6)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"matrix": np.ones(3)}, "must be a matrix"),
        ({"matrix": np.ones((0, 3))}, "must be a matrix"),
        ({"matrix": [[np.nan]]}, "`matrix` must be finite"),
        ({"pair": DifferentialPair(30.0), "device": GenericPCM()}, "more than the device offers"),
        ({"tile_size": (0, 4)}, "`tile_size`"),
        ({"compensation": "row"}, "`compensation` must be one of None, 'global', 'column'"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Crossbar(**{"matrix": np.ones((2, 2)), **arguments})


def test_refuses_bad_inputs(matrix):
    crossbar = Crossbar(matrix, GenericPCM())
    with pytest.raises(ValueError, match="`x` must have 70 values"):
        crossbar.matmul(np.ones((2, 50)))
    with pytest.raises(ValueError, match="`t`"):
        crossbar.weights(-1.0)
