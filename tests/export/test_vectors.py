"""Golden vectors: each number can be computed from the others of the file, in integers."""

import json

import keras
import numpy as np
import pytest

import snukeras
from snukeras.export.errors import BadInputError
from snukeras.export.exporter import export
from snukeras.export.samples import Samples
from snukeras.export.vectors import FixedNeuron, FixedPoint, write_vectors
from snukeras.pcm import Chip, GenericPCM, InputConverter, OutputConverter, Tile, analog, calibrate

S = snukeras.layers
TILE = Tile(8, 4, InputConverter(6), OutputConverter(7, noise=0.3))
X = np.random.default_rng(1).random((3, 12, 10)).astype("float32")


def network(tile=TILE):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((12, 10)),
            S.SNU(9, decay=0.7, return_sequences=True, name="first"),
            S.SNU(6, recurrent=True, state_activation="relu", return_sequences=True, name="second"),
            keras.layers.Dense(3, name="out"),
        ],
        name="net",
    )
    net = analog(model, tile, GenericPCM())
    calibrate(net, X)
    return net


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    net = network()
    agreement = write_vectors(path, net, [[X[:2]], [X[2:]]])
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return net, agreement, arrays, json.loads(str(arrays["description"]))


@pytest.mark.slow
def test_products_follow_from_the_codes(written):
    _, _, arrays, description = written
    assert [m["name"] for m in description["matrices"]] == [
        "first/kernel",
        "second/kernel",
        "second/recurrent_kernel",
        "out/kernel",
    ]
    for matrix in description["matrices"]:
        name = matrix["name"]
        inputs, outputs = arrays[f"{name}/input"], arrays[f"{name}/output"]
        assert inputs.shape == (36, matrix["rows"])
        assert outputs.shape == (36, len(matrix["row_blocks"]), matrix["columns"])
        low, high = 2 ** (matrix["input_bits"] - 1) - 1, 2 ** (matrix["output_bits"] - 1) - 1
        assert (low, high) == (31, 63) and np.abs(inputs).max() <= 31
        total = np.zeros((36, matrix["columns"]))
        for block, (start, stop) in enumerate(matrix["row_blocks"]):
            currents = inputs[:, start:stop] / low @ arrays[f"{name}/weights"][start:stop]
            full = arrays[f"{name}/output_range"][block]
            codes = np.rint(np.clip(currents / full, -1, 1) * high)
            assert np.mean(codes != outputs[:, block]) < 0.01  # halves may round either way
            r = arrays[f"{name}/input_range"][:, block, None]
            total += outputs[:, block] / high * full * r * arrays[f"{name}/unit"]
        np.testing.assert_allclose(total, arrays[f"{name}/sum"], atol=1e-4)


@pytest.mark.slow
def test_neurons_follow_from_their_drive_in_integers(written):
    """The neuron, one unit and one step after the other, in Python's integers."""
    _, agreement, arrays, description = written
    assert [n["name"] for n in description["neurons"]] == ["first", "second"]
    assert set(agreement) == {"first", "second"} and min(agreement.values()) > 0.98
    for neuron in description["neurons"]:
        name = neuron["name"]
        assert neuron["runs"] == 2 and neuron["agreement"] == agreement[name]
        drive, y = arrays[f"{name}/0/fixed_drive"], arrays[f"{name}/0/fixed_spikes"]
        potential, top = arrays[f"{name}/0/fixed_potential"], 2 ** (neuron["state_bits"] - 1)
        for sample, unit in np.ndindex(drive.shape[0], drive.shape[2]):
            s, spike = 0, 0
            decay, threshold = (
                int(np.broadcast_to(arrays[f"{name}/{part}"], (drive.shape[2],))[unit])
                for part in ("decay", "threshold")
            )
            for step in range(drive.shape[1]):
                kept = (decay * s + (1 << (neuron["decay_bits"] - 1))) >> neuron["decay_bits"]
                s = int(drive[sample, step, unit]) + (0 if spike else kept)
                s = max(s, 0) if neuron["rectified"] else s
                s = min(max(s, -top), top - 1)
                spike = int(s > threshold)
                assert (s, spike) == (potential[sample, step, unit], y[sample, step, unit])
        scale = 2.0 ** neuron["fraction_bits"]
        near = np.abs(potential / scale - arrays[f"{name}/0/potential"])
        assert np.median(near) < 0.01


@pytest.mark.slow
def test_noise_is_back_afterwards(written):
    net = written[0]
    assert not any(tiles.quiet or tiles.recorder for tiles in net.tiles)
    one, other = (keras.ops.convert_to_numpy(net(X)) for _ in range(2))
    assert not np.array_equal(one, other)


def test_few_bits_and_shared_gates():
    drive = np.array([[[7, 3], [-4, 9], [100, 1]]])
    neuron = FixedNeuron(0.5, [0.5, 1.0], FixedPoint(5, 4), 3, lateral_inhibition=True)
    s, y = neuron.run(drive)
    np.testing.assert_array_equal(neuron.threshold, [4, 8])
    np.testing.assert_array_equal(s, [[[7, 3], [-4, 9], [15, 1]]])
    np.testing.assert_array_equal(y, [[[1, 0], [0, 1], [1, 0]]])
    for form in ((3, 8), (16, 0), (24, 8)):
        with pytest.raises(ValueError, match="bits"):
            FixedPoint(*form)


@pytest.mark.slow
def test_of_a_chip(tmp_path):
    net = network()
    model = Chip(net, compensation="column", seed=1).model(1e6)
    write_vectors(tmp_path / "v.npz", model, [[X]], most=5)
    with np.load(tmp_path / "v.npz") as file:
        assert file["out/kernel/input"].shape == (5, 6)
        assert np.all(file["first/kernel/factor"] > 1.0)


def test_the_exporter_writes_them(tmp_path):
    net = network()
    samples = Samples("some", [[X]])
    report = export(net, tmp_path / "out", vectors=True, samples=samples, chips=1, times=(25.0,))
    assert report.verification.ok and "vectors.npz" in report.files
    with pytest.raises(BadInputError, match=r"network on tiles.*analog\(model\)"):
        export(net.digital(), tmp_path / "plain", vectors=True, samples=samples)
    assert not (tmp_path / "plain").exists()


@pytest.mark.slow
def test_networks_without_vectors(tmp_path):
    with pytest.raises(BadInputError, match="need converters with bits"):
        write_vectors(tmp_path / "v.npz", network("ideal"), [[X]])
    net = analog(network().digital(), "generic8")
    with pytest.raises(BadInputError, match="not calibrated"):
        write_vectors(tmp_path / "v.npz", net, [[X]])
    with pytest.raises(BadInputError, match="at least one sample"):
        write_vectors(tmp_path / "v.npz", network(), [])
