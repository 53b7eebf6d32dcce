"""Networks of other libraries come out as Keras models with the spikes of their own runs."""

from pathlib import Path

import keras
import numpy as np
import pytest
from nir_files import chain, lif, linear, write

from snukeras.export import command, load_map, rate_nir, read_nir
from snukeras.export.network import Network
from snukeras.export.nir.read import read_rated
from snukeras.export.nir.write import write_nir
from snukeras.layers import LIF, SNU

FILES = Path(__file__).parent / "files"
NAMES = sorted(path.stem for path in FILES.glob("*.npz"))


def opened(name, folder):
    """Return the path of a network that another library wrote, its input and its output."""
    with np.load(FILES / f"{name}.npz") as found:
        path = folder / f"{name}.nir"
        path.write_bytes(found["nir"].tobytes())
        return path, found["x"], found["y"]


def said(name):
    """Return what the reader has to be told of a file: what NIR does not hold."""
    writer = name.split("_")[0]
    options = {"reset": "zero"} if name.endswith("_zero") else {}
    return options | ({"writer": writer} if asked(name) else {})


def asked(name):
    """Return whether the numbers of a file do not tell its writer."""
    return name.endswith("_iaf") or name.startswith("spikingjelly")


@pytest.mark.some_cases(4)
@pytest.mark.parametrize("name", NAMES)
def test_the_spikes_are_those_of_the_writer(name, tmp_path):
    path, x, y = opened(name, tmp_path)
    model, rating = read_rated(path, **said(name))
    assert rating.writer == name.split("_")[0]
    assert rating.recognised == (not asked(name))
    assert rating.count("faithful") == len(rating.nodes) > 4
    found = np.asarray(model(x))
    whole = set(np.unique(y)) <= set(range(100))
    assert np.abs(y).mean() > 0.02
    assert name != "sinabs_iaf" or y.max() > 1
    if whole:
        np.testing.assert_array_equal(found, y)
    else:
        np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)


def stepped(node, weight, loop, x, dt, reset):
    """NIR's own equations by Euler's rule, in float64, one step after the other."""

    def of(name, default=0.0):
        return np.broadcast_to(np.asarray(node.get(name, default), "float64"), len(weight))

    kind = node["type"]
    leaks, cuba = kind not in ("I", "IF"), kind.startswith("Cuba")
    tau = of("tau_mem" if cuba else "tau", 1.0)
    v = np.tile(of("v_leak") if leaks else np.zeros(len(weight)), (len(x), 1))
    i, y, shown = np.zeros_like(v), np.zeros_like(v), []
    for t in range(x.shape[1]):
        drive = x[:, t] @ weight.T + y @ loop.T
        if cuba:
            i = i + dt / of("tau_syn") * (of("w_in", 1.0) * drive - i)
            drive = i
        v = v + (dt / tau * (of("v_leak") - v + of("r") * drive) if leaks else dt * of("r") * drive)
        if "v_threshold" not in node:
            shown.append(v)
            continue
        y = (v > of("v_threshold")).astype("float64")
        shown.append(y)
        v = np.where(y > 0, of("v_reset"), v) if reset is None else v - y * of("v_threshold")
    return np.stack(shown, axis=1)


@pytest.mark.some_cases(1)
@pytest.mark.parametrize(
    "kind",
    [
        "LIF",
        "recurrent LIF",
        "IF",
        "recurrent IF",
        "CubaLIF",
        "recurrent CubaLIF",
        "LI",
        "I",
        "CubaLI",
    ],
)
def test_an_unknown_writer_is_read_by_the_equations(kind, tmp_path):
    *recurrent, kind = kind.split()
    generator = np.random.default_rng(len(kind) + len(recurrent))
    fires = kind in ("LIF", "IF", "CubaLIF")
    dt, n = 2e-3, 5
    weight, loop = generator.normal(size=(n, 4)), len(recurrent) * generator.normal(size=(n, n))
    node = {"type": kind, "r": generator.uniform(1, 2, n)}
    if kind in ("LIF", "LI"):
        node["tau"] = generator.uniform(4e-3, 2e-2, n)
    if kind.startswith("Cuba"):
        node |= {name: generator.uniform(4e-3, 2e-2, n) for name in ("tau_mem", "tau_syn")}
        node["w_in"] = generator.uniform(1, 3, n)
    if kind not in ("I", "IF"):
        node["v_leak"] = generator.normal(size=n) * 0.1
    if fires:
        scale = 0.002 if kind == "IF" else 0.4
        node |= {"v_threshold": scale * generator.uniform(1, 2, n)}
    nodes = {
        "input": {"type": "Input", "shape": [4]}, "fc": {"type": "Linear", "weight": weight},
        "unit": node, "loop": {"type": "Linear", "weight": loop},
        "output": {"type": "Output", "shape": [n]},
    }  # fmt: skip
    edges = chain("input", "fc", "unit", "output")
    if recurrent:
        edges += chain("unit", "loop", "unit")
    else:
        del nodes["loop"]
    x = generator.normal(size=(3, 40, 4))
    for reset, low in ((None, 0.0), (None, -0.1), ("subtract", None)):
        if fires and low is not None:
            node["v_reset"] = np.full(n, low * (0.02 if kind == "IF" else 1.0))
        path = write(tmp_path / "network.nir", nodes, edges)
        options = {"dt": dt, "reset": reset if fires else None}
        model, rating = read_rated(path, **options)
        (rated,) = (found for found in rating.nodes if found.name == "unit")
        assert rating.writer == "nir" and rated.rating == "approximate" and "Euler" in rated.note
        found = np.asarray(model(x.astype("float32")))
        expected = stepped(node, weight, loop, x, dt, reset)
        assert not fires or 0.03 < expected.mean() < 0.9
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_this_package_writes_comes_back(tmp_path):
    pytest.importorskip("nir", reason="needs the library nir")
    keras.utils.set_random_seed(1)
    options = {"threshold": 0.3, "return_sequences": True}
    model = keras.Sequential(
        [
            keras.Input((None, 5), name="x"),
            SNU(7, decay=[0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95], recurrent=True, **options),
            keras.layers.Dense(6),
            SNU(4, decay=1.0, use_bias=True, bias_initializer="uniform", **options),
        ]
    )
    write_nir(Network.read(model), tmp_path / "m.nir", 1e-3)
    rating = rate_nir(tmp_path / "m.nir")
    assert (rating.writer, rating.dt, rating.recognised) == ("snukeras", 1e-3, True)
    assert rating.count("faithful") == len(rating.nodes)
    again = read_nir(tmp_path / "m.nir")
    assert [type(layer) for layer in again.layers[1:]] == [SNU, keras.layers.Dense, SNU]
    x = np.random.default_rng(0).normal(size=(3, 50, 5)).astype("float32")
    y = np.asarray(model(x))
    assert 0.05 < y.mean() < 0.95
    np.testing.assert_array_equal(np.asarray(again(x)), y)


def test_maps_padding_groups_sums_and_scales(tmp_path):
    """Against the definitions: convolution in groups, pools that sum, two ways that are added."""
    generator = np.random.default_rng(2)
    weight, scale = generator.normal(size=(4, 1, 3, 2)), generator.normal(size=(4, 2, 2))
    nodes = {
        "in": {"type": "Input", "shape": [2, 4, 5]},
        "conv": {"type": "Conv2d", "weight": weight, "bias": [1.0, 2.0, 3.0, 4.0], "stride": 1,
                 "padding": [1, 0], "dilation": 1, "groups": 2},
        "sum": {"type": "SumPool2d", "kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0]},
        "mean": {"type": "AvgPool2d", "kernel_size": 2, "stride": 2, "padding": 0},
        "scale": {"type": "Scale", "scale": scale},
        "step": {"type": "Threshold", "threshold": np.full((4, 2, 2), 0.5)},
        "flat": {"type": "Flatten", "start_dim": 0, "end_dim": -1, "input_type": [4, 2, 2]},
        "fc": {"type": "Linear", "weight": np.eye(16)},
        "out": {"type": "Output", "shape": [16]},
    }  # fmt: skip
    edges = [*chain("in", "conv", "sum", "scale", "step", "flat", "fc", "out"), ("conv", "mean"),
             ("mean", "step")]  # fmt: skip
    model = read_nir(write(tmp_path / "m.nir", nodes, edges))
    x = generator.normal(size=(1, 1, 2, 4, 5)).astype("float32")
    padded = np.pad(x[0, 0], ((0, 0), (1, 1), (0, 0)))
    maps = np.array(
        [
            [[np.sum(padded[c // 2, i : i + 3, j : j + 2] * weight[c, 0]) for j in range(4)]
             for i in range(4)]
            for c in range(4)
        ]
    ) + np.arange(1.0, 5.0)[:, None, None]  # fmt: skip
    pooled = maps.reshape(4, 2, 2, 2, 2).sum(axis=(2, 4))
    expected = (scale * pooled + pooled / 4 > 0.5).reshape(-1)
    assert 0 < expected.sum() < 16
    np.testing.assert_array_equal(model(np.moveaxis(x, 2, -1))[0, 0], expected)


def test_one_dimension_and_scalars_for_all_neurons(tmp_path):
    weight = np.random.default_rng(3).normal(size=(2, 3, 2))
    nodes = {
        "in": {"type": "Input", "shape": [3, 6]},
        "conv": {"type": "Conv1d", "weight": weight, "bias": np.zeros(2), "stride": 2,
                 "padding": "valid", "dilation": 1, "groups": 1},
        "unit": {"type": "LIF", "tau": np.float32(1e-3), "r": 10.0, "v_leak": 0.0,
                 "v_threshold": [0.5]},
        "out": {"type": "Output", "shape": [2, 3]},
    }  # fmt: skip
    path = write(tmp_path / "m.nir", nodes, chain("in", "conv", "unit", "out"))
    rating = rate_nir(path)
    nodes["in"], nodes["conv"]["input_shape"] = {"type": "Input"}, 6
    assert rate_nir(write(tmp_path / "n.nir", nodes, chain("in", "conv", "unit", "out"))).nodes
    assert rating.writer == "snntorch" and rating.count("faithful") == 4
    x = np.random.default_rng(4).normal(size=(1, 1, 3, 6)).astype("float32")
    pairs = x[0, 0].reshape(3, 3, 2)
    expected = np.einsum("cpk,ock->po", pairs, weight) > 0.5
    np.testing.assert_array_equal(read_nir(path)(np.moveaxis(x, 2, -1))[0, 0], expected)


def test_graphs_inside_the_graph_and_nodes_that_lead_nowhere(tmp_path):
    inner = {
        "type": "NIRGraph", "edges": [[b"in", b"lif"], [b"lif", b"w"], [b"w", b"lif"],
                                      [b"lif", b"out"]],
        "nodes": {"in": {"type": "Input", "shape": [3]}, "lif": lif(), "w": linear(3, 3),
                  "out": {"type": "Output", "shape": [3]}},
    }  # fmt: skip
    nodes = {"input": {"type": "Input", "shape": [4]}, "fc": linear(), "block": inner,
             "spare": linear(2, 3), "output": {"type": "Output", "shape": [3]}}  # fmt: skip
    edges = [*chain("input", "fc", "block", "output"), ("block", "spare")]
    rating = rate_nir(write(tmp_path / "m.nir", nodes, edges), dt=1e-3)
    notes = {node.name: (node.layer, node.note) for node in rating.nodes}
    assert notes["block.w"] == ("SNU block_lif", "part of block.lif")
    assert notes["fc"][0] == "SNU block_lif" and "leads to no output" in notes["spare"][1]
    (layer,) = read_nir(tmp_path / "m.nir", dt=1e-3).layers[1:]
    assert isinstance(layer, SNU) and layer.recurrent
    layer = read_nir(tmp_path / "m.nir", dt=1e-3, reset="subtract").layers[-1]
    assert isinstance(layer, LIF) and layer.cell.recurrent


@pytest.mark.slow
def test_a_network_of_snntorch_reaches_a_map_in_one_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path, x, y = opened("snntorch_recurrent_subtract", tmp_path)
    np.savez(tmp_path / "x.npz", x=x)
    assert command.main([path.name, "--chips", "1", "--samples", "x.npz"]) == 0
    out = capsys.readouterr().out
    assert "as snntorch steps it (told by its numbers)" in out and "7 faithful" in out
    assert "0 of 360 spikes differ" in out and "Verified." in out
    folder = tmp_path / f"{path.stem}-pcm"
    weights = load_map(folder / "crossbar.snumap").weights()
    assert {name: value.shape for name, value in weights.items() if value.ndim > 1} == {
        "node_0/kernel": (4, 6), "node_2/kernel": (6, 3), "node_3_lif/recurrent_kernel": (3, 3),
    }  # fmt: skip
    model = keras.models.load_model(folder / "model.keras")
    np.testing.assert_array_equal(np.asarray(model(x)), y)


def test_names_of_nodes_cannot_reach_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    nodes = {"in": {"type": "Input", "shape": [4]}, "\x1b[2J": linear(), "unit": lif(),
             "out": {"type": "Output", "shape": [3]}}  # fmt: skip
    write(tmp_path / "m.nir", nodes, chain("in", "\x1b[2J", "unit", "out"))
    assert command.main(["m.nir", "--dt", "1e-3", "--target", "onnx"]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and "approximate" in said.out
