"""The NIR form of a network has the parameters of its units, and spikes like them."""

import sys

import keras
import numpy as np
import pytest

from snukeras.export import command
from snukeras.export import nir as nir_file
from snukeras.export.errors import BadInputError, UnsupportedLayersError
from snukeras.export.exporter import export
from snukeras.export.verify.folder import verify_folder
from snukeras.layers import SNU, SSNU

DT = 1e-3


@pytest.fixture
def nir():
    return pytest.importorskip("nir", reason="needs the library nir")


def unit(units=7, **options):
    options = {"state_activation": "linear", "threshold": 0.3, "return_sequences": True, **options}
    return SNU(units, **options)


def network(loop=True, **options):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((None, 5), name="x"),
            unit(decay=[0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95], name="first", **options),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(6, name="between"),
            unit(4, use_bias=True, bias_initializer="uniform", recurrent=loop, name="second"),
        ]
    )


def simulate(nir, graph, x, dt):
    """NIR's equations with Euler's rule; edges back into a unit carry the last step's values."""
    inputs = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    v = {n: np.zeros(p.v_threshold.shape) for n, p in graph.nodes.items() if hasattr(p, "v_reset")}
    last = {name: np.zeros(node.output_type["output"]) for name, node in graph.nodes.items()}
    found = []
    for now in x:
        new = {}

        def value(name, now=now, new=new, last=last):
            node = graph.nodes[name]
            if name not in new:
                # A Linear node on the way back takes what its unit put out a step ago.
                back = any(name in inputs[a] for a in inputs[name])
                i = sum(last[a] if back and a in v else value(a) for a in inputs[name])
                if isinstance(node, nir.Input):
                    i = now
                elif isinstance(node, nir.Linear | nir.Affine):
                    i = node.weight @ i + getattr(node, "bias", 0.0)
                elif isinstance(node, nir.LIF):
                    u = v[name] + dt / node.tau * (node.v_leak - v[name] + node.r * i)
                    i = (u > node.v_threshold).astype("float64")
                    v[name] = np.where(i > 0, node.v_reset, u)
                elif isinstance(node, nir.IF):
                    u = v[name] + dt * node.r * i
                    i = (u > node.v_threshold).astype("float64")
                    v[name] = np.where(i > 0, node.v_reset, u)
                new[name] = i
            return new[name]

        (out,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.Output))
        found.append(value(out))
        last = new
    return np.array(found)


def text(value):
    """The library reads text as bytes in nodes, as str in graphs."""
    return value.decode() if isinstance(value, bytes) else value


def test_nodes_and_parameters(nir, tmp_path):
    model = network()
    said = nir_file.write_nir(model, tmp_path / "m.nir", DT)
    graph = nir.read(str(tmp_path / "m.nir"))
    assert {name: type(node).__name__ for name, node in graph.nodes.items()} == said["nodes"]
    assert said["nodes"] == {
        "x": "Input",
        "first_kernel": "Linear",
        "first": "LIF",
        "between": "Affine",
        "second_kernel": "Affine",
        "second_recurrent_kernel": "Linear",
        "second": "LIF",
        "second_output": "Output",
    }
    assert set(graph.edges) == {
        ("x", "first_kernel"),
        ("first_kernel", "first"),
        ("first", "between"),
        ("between", "second_kernel"),
        ("second_kernel", "second"),
        ("second", "second_recurrent_kernel"),
        ("second_recurrent_kernel", "second"),
        ("second", "second_output"),
    }
    cell, node = model.get_layer("first").cell, graph.nodes["first"]
    tau = DT / (1.0 - cell.decay_values().astype("float64"))
    np.testing.assert_allclose(node.tau, tau)
    np.testing.assert_allclose(node.r, tau / DT)
    np.testing.assert_array_equal(node.v_threshold, cell.threshold_values())
    assert not node.v_reset.any() and not node.v_leak.any()
    np.testing.assert_array_equal(graph.nodes["first_kernel"].weight, np.array(cell.kernel).T)
    for metadata in (graph.metadata, node.metadata):
        assert metadata["dt"] == DT and "one step late" in text(metadata["reset"])
    assert "one dt" in text(graph.nodes["second_recurrent_kernel"].metadata["delay"])


@pytest.mark.parametrize("options", [{}, {"decay": 1.0}, {"recurrent": True}, {"threshold": -0.1}])
def test_it_spikes_alike(nir, tmp_path, options):
    model = network()
    if options:
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input((None, 5)), unit(30, **options)])
    nir_file.write_nir(model, tmp_path / "m.nir", DT)
    x = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
    expected = np.asarray(model(x[None]))[0]
    got = simulate(nir, nir.read(str(tmp_path / "m.nir")), x, DT)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(got, expected)


def played(network, x):
    """Spikes of a torch network that is fed step by step and hands its state back."""
    torch = pytest.importorskip("torch")
    state, spikes = None, []
    with torch.no_grad():
        for now in x:
            y, state = network(torch.from_numpy(now[None]), state)
            spikes.append(y[0].numpy())
    return np.array(spikes)


def test_snntorch_opens_it_and_spikes_alike(nir, tmp_path):
    """With dt = 1e-4 s, which snntorch takes for granted, r dt / tau is 1 as it demands."""
    importer = pytest.importorskip("snntorch.import_nir", reason="needs snntorch")
    model = network(loop=False)  # snntorch 1.0 fails on graphs with a loop
    nir_file.write_nir(model, tmp_path / "m.nir", 1e-4)
    graph = nir.read(str(tmp_path / "m.nir"))
    x = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
    expected = np.asarray(model(x[None]))[0]
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(played(importer.import_from_nir(graph), x), expected)


def test_norse_opens_it_and_spikes_alike_once_r_is_in_the_weights(nir, tmp_path):
    """norse leaves r out (and warns): the graph's reader multiplies the weights before a LIF."""
    norse = pytest.importorskip("norse.torch", reason="needs norse")
    model = network(recurrent=True)
    nir_file.write_nir(model, tmp_path / "m.nir", DT)
    graph = nir.read(str(tmp_path / "m.nir"))
    for before, name in graph.edges:
        node, product = graph.nodes[name], graph.nodes[before]
        if isinstance(node, nir.LIF):
            product.weight = product.weight * node.r[:, None]
            if isinstance(product, nir.Affine):
                product.bias = product.bias * node.r
    for node in graph.nodes.values():
        if isinstance(node, nir.LIF):
            node.r = np.ones_like(node.r)
    x = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
    expected = np.asarray(model(x[None]))[0]
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(played(norse.from_nir(graph, dt=DT), x), expected)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: SSNU(3, state_activation="linear", return_sequences=True, name="u"), "soft"),
        (lambda: unit(3, state_activation="relu", name="u"), "rectified state .* relu"),
        (lambda: unit(3, lateral_inhibition=True, name="u"), "lateral inhibition"),
        (lambda: unit(3, return_sequences=False, name="u"), "every step"),
        (lambda: unit(3, go_backwards=True, name="u"), "forward"),
        (lambda: unit(2, decay=[1.0, 0.5], name="u"), "no finite tau"),
        (lambda: keras.layers.Dense(3, activation="sigmoid", name="u"), "no sigmoid"),
        (lambda: keras.layers.LSTM(3, return_sequences=True, name="u"), "no form for LSTM"),
        (lambda: keras.layers.Masking(name="u"), "no form for Masking"),
    ],
)
def test_what_nir_cannot_express_is_refused(nir, tmp_path, layer, reason):
    model = keras.Sequential([keras.Input((None, 5)), layer()])
    with pytest.raises(UnsupportedLayersError, match=f"u .*{reason}"):
        nir_file.write_nir(model, tmp_path / "m.nir", DT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dt", [0.0, -1.0, float("nan"), float("inf")])
def test_dt_must_be_a_time(tmp_path, dt):
    with pytest.raises(BadInputError, match="positive number of seconds"):
        nir_file.write_nir(network(), tmp_path / "m.nir", dt)


def test_without_the_library_the_hint_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(BadInputError, match=r"pip install 'snukeras\[nir\]'"):
        nir_file.write_nir(network(), tmp_path / "m.nir", DT)


def test_it_is_part_of_the_export(nir, tmp_path):
    model = network()
    report = export(model, tmp_path / "out", target="onnx", nir_dt=DT)
    assert report["nir"]["dt"] == DT and "model.nir" in report["files"]
    assert verify_folder(tmp_path / "out")["ok"]
    export(model, tmp_path / "again", target="onnx", nir_dt=DT)
    same = [(tmp_path / folder / "model.nir").read_bytes() for folder in ("out", "again")]
    assert same[0] == same[1]


def test_command_line(nir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network().save("m.keras")
    assert command.main(["m.keras", "--nir"]) == 2
    assert "--nir needs --dt" in capsys.readouterr().err
    assert command.main(["m.keras", "--dt", "1"]) == 2
    assert command.main(["m.keras", "--nir", "--dt", "nan"]) == 2
    assert command.main(["m.keras", "--nir", "--dt", "1e-3", "--output", "out"]) == 0
    assert "model.nir" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.nir").is_file()
