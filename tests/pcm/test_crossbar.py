"""Crossbars: exact without non-idealities, converters, IR drop against a circuit, compensation."""

import keras
import numpy as np
import pytest

from snukeras.pcm import (
    Converter,
    Crossbar,
    DifferentialPair,
    GenericPCM,
    IdealDevice,
    StuckDevices,
    with_ir_drop,
)


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(size=(70, 50)).astype("float32")


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


def test_converter():
    fixed = Converter(bits=3, bound=1.0)
    np.testing.assert_allclose(
        fixed(np.array([-9, -0.4, 0.1, 0.2, 0.9])), [-1, -1 / 3, 0, 1 / 3, 1]
    )
    own = Converter(bits=2)
    np.testing.assert_allclose(own(np.array([[1.0, 5.0], [-2.0, 0.0]])), [[0, 5], [-2, 0]])
    assert np.all(own(np.zeros((2, 3))) == 0)
    noisy = Converter(noise=0.1)(np.zeros((100, 100)), seed=1)
    assert noisy.std() == pytest.approx(0.1, rel=0.05)
    for arguments in ({"bits": 1}, {"bits": 2.5}, {"bound": 0}, {"noise": -1}):
        with pytest.raises(ValueError, match="`" + next(iter(arguments)) + "`"):
            Converter(**arguments)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(fixed))
    assert copy.get_config() == fixed.get_config()


def solve_circuit(conductances, inputs, resistance):
    """Bit-line currents of a tile with resistive wires, by nodal analysis; uS, ohm, V -> uA.

    Each cell has a node on its word line and one on each of its two bit lines. Word lines are
    driven before column 0, bit lines are held at 0 V before row 0.
    """
    _, rows, columns = conductances.shape
    wire = 1e6 / resistance  # uS
    word = np.arange(rows * columns).reshape(rows, columns)
    bit = [word + rows * columns, word + 2 * rows * columns]
    nodes = 3 * rows * columns
    laplacian, current = np.zeros((nodes, nodes)), np.zeros(nodes)

    def join(a, b, g):
        laplacian[a, a] += g
        laplacian[b, b] += g
        laplacian[a, b] -= g
        laplacian[b, a] -= g

    for i in range(rows):
        for j in range(columns):
            if j:
                join(word[i, j - 1], word[i, j], wire)
            else:
                laplacian[word[i, 0], word[i, 0]] += wire
                current[word[i, 0]] += wire * inputs[i]
            for line in (0, 1):
                join(word[i, j], bit[line][i, j], conductances[line, i, j])
                if i:
                    join(bit[line][i - 1, j], bit[line][i, j], wire)
                else:
                    laplacian[bit[line][0, j], bit[line][0, j]] += wire
    volts = np.linalg.solve(laplacian, current)
    return np.stack([volts[bit[line][0]] * wire for line in (0, 1)])


def test_ir_drop_is_the_circuit_to_first_order():
    generator = np.random.default_rng(0)
    g = generator.uniform(0, 25, (2, 12, 8))
    x = generator.normal(size=12)
    ideal = np.einsum("i,lij->lj", x, g)
    errors = []
    for resistance in (0.5, 5.0):
        circuit = solve_circuit(g, x, resistance)
        model = np.einsum("i,lij->lj", x, with_ir_drop(g, resistance))
        drop = np.abs(circuit - ideal).max()
        errors.append(np.abs(model - circuit).max())
        assert errors[-1] < 0.02 * drop
    # What is left is of second order: a hundred times for ten times the resistance.
    assert errors[1] / errors[0] == pytest.approx(100, rel=0.1)
    assert with_ir_drop(g, 0.0) is g
    with pytest.raises(ValueError, match="`wire_resistance`"):
        with_ir_drop(g, -1.0)


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


def test_column_compensation_is_per_column():
    device = GenericPCM(programming_noise=0, read_noise=0)
    matrix = np.ones((64, 2), "float32")
    crossbar = Crossbar(matrix, device, compensation="column", seed=1)
    nu = np.array(crossbar.state.nu)
    nu[:, :, 0], nu[:, :, 1] = 0.02, 0.2
    crossbar.state = crossbar.state._replace(nu=nu.astype("float32"))
    np.testing.assert_allclose(crossbar.weights(1e6), matrix, rtol=1e-4)
    uniform = Crossbar(matrix, device, compensation="global", seed=1)
    uniform.state = crossbar.state
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
