"""Golden vectors: each number can be computed from the others of the file, in integers."""

import json
import subprocess

import keras
import numpy as np
import pytest

import snukeras
from snukeras.export.c import compiler
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
    found = write_vectors(path, net, [[X[:2]], [X[2:]]])
    assert found.left_out == {}
    agreement = found.agreement
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
    assert set(report.vectors.agreement) == {"first", "second"} and not report.vectors.left_out
    with pytest.raises(BadInputError, match=r"network on tiles.*analog\(model\)"):
        export(net.digital(), tmp_path / "plain", vectors=True, samples=samples)
    assert not (tmp_path / "plain").exists()


@pytest.mark.slow
def test_layers_without_a_neuron_are_named(tmp_path):
    inner = keras.Sequential([keras.Input((12, 9)), S.SNU(9, return_sequences=True, name="first")])
    model = keras.Sequential(
        [
            keras.Input((12, 10)),
            S.SNU(9, return_sequences=True, name="first"),
            inner,
            S.SSNU(8, return_sequences=True, name="soft"),
            S.LIF(8, return_sequences=True, name="leaky"),
            S.SNU(5, go_backwards=True, return_sequences=True, name="back"),
            S.SNU(4, state_activation="tanh", return_sequences=True, name="curved"),
            keras.layers.Masking(),
            S.SNU(3, return_sequences=True, name="masked"),
        ]
    )
    net = analog(model, TILE)
    calibrate(net, X)
    found = write_vectors(tmp_path / "v.npz", net, [[X]])
    # Two layers of one name are two neurons.
    assert len(found.agreement) == 2 and "first" in found.agreement
    assert set(found.left_out) == {"soft", "leaky", "back", "curved", "masked"}
    assert "a mask" in found.left_out["masked"] and "tanh" in found.left_out["curved"]
    with np.load(tmp_path / "v.npz") as file:
        assert json.loads(str(file["description"]))["left_out"] == found.left_out
        (other,) = set(found.agreement) - {"first"}
        assert not np.array_equal(file["first/0/fixed_drive"], file[f"{other}/0/fixed_drive"])


@pytest.mark.slow
def test_networks_without_vectors(tmp_path):
    with pytest.raises(BadInputError, match="need converters with bits"):
        write_vectors(tmp_path / "v.npz", network("ideal"), [[X]])
    net = analog(network().digital(), "generic8")
    with pytest.raises(BadInputError, match="not calibrated"):
        write_vectors(tmp_path / "v.npz", net, [[X]])
    with pytest.raises(BadInputError, match="at least one sample"):
        write_vectors(tmp_path / "v.npz", network(), [])


# The digital neuron as docs/analog.md tells it, by somebody who read nothing else: one gate group
# of units at a time. Its input is one line of settings, then D, T and the drives.
NEURON = """
#include <stdint.h>
#include <stdio.h>
int main(void)
{
    int state, decay_bits, rectified, inhibited, steps, units, groups, g, t, u;
    static int32_t D[64], T[64], s[64], y[64], gate[64];
    scanf("%d %d %d %d %d %d %d", &state, &decay_bits, &rectified, &inhibited, &groups, &steps,
          &units);
    for (u = 0; u < units; u++) scanf("%d", D + u);
    for (u = 0; u < units; u++) scanf("%d", T + u);
    for (g = 0; g < groups; g++) {
        for (u = 0; u < units; u++) s[u] = y[u] = 0;
        for (t = 0; t < steps; t++) {
            int any = 0;
            for (u = 0; u < units; u++) any |= y[u];
            for (u = 0; u < units; u++) gate[u] = inhibited ? any : y[u];
            for (u = 0; u < units; u++) {
                const int32_t top = (int32_t)1 << (state - 1);
                int32_t d, kept = (D[u] * s[u] + ((int32_t)1 << (decay_bits - 1))) >> decay_bits;
                scanf("%d", &d);
                s[u] = gate[u] ? d : d + kept;
                if (rectified && s[u] < 0) s[u] = 0;
                if (s[u] > top - 1) s[u] = top - 1;
                if (s[u] < -top) s[u] = -top;
                y[u] = s[u] > T[u];
                printf("%d %d\\n", s[u], y[u]);
            }
        }
    }
    return 0;
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", [FixedPoint(), FixedPoint(6, 3), FixedPoint(23, 8)])
def test_a_neuron_in_c_gives_the_spikes_of_the_file(tmp_path, form):
    if compiler.find() is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "neuron.c").write_text(NEURON)
    program = tmp_path / "neuron"
    subprocess.run([compiler.find(), "-O1", tmp_path / "neuron.c", "-o", program], check=True)
    keras.utils.set_random_seed(2)
    shared = {"lateral_inhibition": True, "return_sequences": True, "threshold": 0.2}
    model = keras.Sequential(
        [
            keras.Input((5, 6, 6, 2)),
            S.ConvSNU2D(4, 3, name="places", **shared),
            keras.layers.Reshape((5, 64)),
            S.SNU(9, decay=1.0, name="units", **shared),
            S.SNU(7, recurrent=True, state_activation="relu", name="last"),
        ]
    )
    x = np.random.default_rng(3).normal(size=(3, 5, 6, 6, 2)).astype("float32")
    net = analog(model, "generic8")
    calibrate(net, x)
    write_vectors(tmp_path / "v.npz", net, [[x]], form)
    with np.load(tmp_path / "v.npz") as file:
        arrays = {name: file[name] for name in file.files}
    neurons = json.loads(str(arrays["description"]))["neurons"]
    assert [neuron["name"] for neuron in neurons] == ["places", "units", "last"]
    for neuron in neurons:
        name = neuron["name"]
        # Samples and places first, then steps and units.
        drive, potential, spikes = (
            np.moveaxis(arrays[f"{name}/0/fixed_{part}"], 1, -2)
            for part in ("drive", "potential", "spikes")
        )
        *places, steps, units = drive.shape
        each = [np.broadcast_to(arrays[f"{name}/{part}"], units) for part in ("decay", "threshold")]
        head = [neuron[key] for key in ("state_bits", "decay_bits", "rectified")]
        head += [neuron["lateral_inhibition"], int(np.prod(places)), steps, units]
        words = [*map(int, head), *np.concatenate([*each, drive.reshape(-1)])]
        given = " ".join(map(str, words))
        got = subprocess.run([program], input=given, capture_output=True, text=True, check=True)
        found = np.array(got.stdout.split(), "int64").reshape(*drive.shape, 2)
        np.testing.assert_array_equal(found[..., 0], potential)
        np.testing.assert_array_equal(found[..., 1], spikes)
        assert 0 < spikes.mean() < 1
