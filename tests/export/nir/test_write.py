"""The NIR form of a network has the parameters of its units, and spikes like them."""

import sys

import h5py
import keras
import numpy as np
import pytest

from snukeras.export import command
from snukeras.export.errors import BadInputError, UnsupportedLayersError
from snukeras.export.exporter import export
from snukeras.export.network import Network
from snukeras.export.nir import write as nir_file
from snukeras.export.nir.read import read_nir
from snukeras.export.samples import Samples
from snukeras.export.verify.folder import verify_folder
from snukeras.export.verify.nir import compare_nir, simulate
from snukeras.layers import LIF, SNU, SSNU, ConvSNU1D, ConvSNU2D, RateCoding

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


def test_nodes_and_parameters(nir, tmp_path):
    model = network()
    said = nir_file.write_nir(Network.read(model), tmp_path / "m.nir", DT)
    graph = nir.read(str(tmp_path / "m.nir"))
    assert {name: type(node).__name__ for name, node in graph.nodes.items()} == said.nodes
    assert said.nodes == {
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
    assert graph.metadata["dt"] == DT and "one step late" in graph.metadata["reset"]


def test_the_file_has_nothing_that_nir_1_0_4_refuses(nir, tmp_path):
    nir_file.write_nir(Network.read(network()), tmp_path / "m.nir", DT)
    with h5py.File(tmp_path / "m.nir") as file:
        nodes = file["node/nodes"]
        assert set(nodes["first"]) - {"type", "input_type", "output_type"} == {
            "tau", "r", "v_leak", "v_threshold"
        }  # fmt: skip
        assert all("metadata" not in node and "v_reset" not in node for node in nodes.values())
    # Readers run nodes in the order in which they find them.
    assert list(nir.read(str(tmp_path / "m.nir")).nodes) == [
        "x",
        "first_kernel",
        "first",
        "between",
        "second_kernel",
        "second_recurrent_kernel",
        "second",
        "second_output",
    ]


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("what", ["weight", "tau", "v_threshold", "edge", "bytes"])
def test_a_graph_that_is_not_the_network_is_found(nir, tmp_path, what):
    model, path = network(), tmp_path / "m.nir"
    nir_file.write_nir(Network.read(model), path, DT)
    good = compare_nir(Network.read(model), path, Samples.random(model, 0))
    assert good.ok and good.checked and good.outputs == 4 * 20 * (7 + 4)
    if what == "bytes":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        with h5py.File(path, "r+") as file:
            nodes = file["node/nodes"]
            if what == "edge":
                del file["node/edges"]
                file["node/edges"] = [[b"x", b"first_kernel"]]
            elif what == "weight":
                nodes["first_kernel/weight"][...] *= 2.0
            else:
                nodes[f"first/{what}"][...] *= 1.5
    found = compare_nir(Network.read(model), path, Samples.random(model, 0))
    assert not found.ok and found.problem


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("options", [{}, {"decay": 1.0}, {"recurrent": True}, {"threshold": -0.1}])
def test_it_spikes_alike(nir, tmp_path, options):
    model = network()
    if options:
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input((None, 5)), unit(30, **options)])
    nir_file.write_nir(Network.read(model), tmp_path / "m.nir", DT)
    x = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
    expected = np.asarray(model(x[None]))[0]
    graph = nir.read(str(tmp_path / "m.nir"))
    (entry,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.Input))
    (out,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.Output))
    got = simulate(nir, graph, {entry: x[None]}, DT)[out][0]
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
    nir_file.write_nir(Network.read(model), tmp_path / "m.nir", 1e-4)
    graph = nir.read(str(tmp_path / "m.nir"))
    x = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
    expected = np.asarray(model(x[None]))[0]
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(played(importer.import_from_nir(graph), x), expected)


def test_norse_opens_it_and_spikes_alike_once_r_is_in_the_weights(nir, tmp_path):
    """norse leaves r out (and warns): the graph's reader multiplies the weights before a LIF."""
    norse = pytest.importorskip("norse.torch", reason="needs norse")
    model = network(recurrent=True)
    nir_file.write_nir(Network.read(model), tmp_path / "m.nir", DT)
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
        nir_file.write_nir(Network.read(model), tmp_path / "m.nir", DT)
    assert list(tmp_path.iterdir()) == []


def test_lif_layers_that_reset_to_zero_go_out_and_come_back(nir, tmp_path):
    keras.utils.set_random_seed(3)
    options = {"reset": "zero", "threshold": 0.3, "return_sequences": True}
    leak = {"bias": 0.02, "initial_potential": 0.1}
    model = keras.Sequential(
        [
            keras.Input((None, 5), name="x"),
            keras.layers.Dense(6),
            LIF(6, decay=0.8, synaptic_decay=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], **leak, **options),
            keras.layers.Dense(4),
            LIF(4, decay=1.0, gain=0.5, recurrent=True, **options),
            keras.layers.Dense(3),
            LIF(3, decay=0.5, threshold=None, reset=None, return_sequences=True),
        ]
    )
    network = Network.read(model)
    said = nir_file.write_nir(network, tmp_path / "m.nir", DT)
    kinds = list(said.nodes.values())
    assert kinds == [
        "Input", "Affine", "CubaLIF", "Affine", "Linear", "IF", "Affine", "LI", "Output",
    ]  # fmt: skip
    found = compare_nir(network, tmp_path / "m.nir", Samples.random(model, 0))
    assert found.ok and found.outputs == 4 * 20 * (6 + 4)
    again = read_nir(tmp_path / "m.nir")
    x = np.random.default_rng(0).normal(size=(3, 40, 5)).astype("float32")
    np.testing.assert_allclose(again(x), model(x), atol=1e-5)
    inner = keras.Model(model.inputs, [model.layers[1].output, model.layers[3].output])
    assert all(0.05 < np.asarray(y).mean() < 0.95 for y in inner(x))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "reset='subtract' is another"),
        ({"reset": "zero", "output_delay": True}, "a step late"),
        ({"reset": "zero", "bias": 0.1}, "starts at its v_leak"),
        ({"reset": "zero", "decay": [1.0, 0.5, 0.5]}, "no finite tau"),
        ({"reset": "zero", "decay": 1.0, "bias": 0.1}, "decay of 1 goes with no bias"),
        ({"reset": None, "threshold": None, "synaptic_decay": 0.5}, "no CubaLI"),
    ],
)
def test_lif_layers_that_nir_cannot_express(nir, tmp_path, options, reason):
    layer = LIF(3, return_sequences=True, name="u", **options)
    with pytest.raises(UnsupportedLayersError, match=f"u .*{reason}"):
        nir_file.write_nir(
            Network.read(keras.Sequential([keras.Input((None, 3)), layer])), tmp_path / "m.nir", DT
        )


PLAIN = {"state_activation": "linear", "threshold": 0.3, "return_sequences": True}
EACH = keras.layers.TimeDistributed


def images():
    return keras.Sequential(
        [
            keras.Input((None, 9, 8, 3)),
            ConvSNU2D(4, (3, 2), strides=(2, 1), padding="same", recurrent=True, **PLAIN),
            ConvSNU2D(3, 3, use_bias=True, bias_initializer="uniform", **PLAIN),
            EACH(keras.layers.AveragePooling2D(2)),
            EACH(keras.layers.Flatten()),
            SNU(6, recurrent=True, **PLAIN),
            keras.layers.Dense(4),
        ]
    )


def strides():
    """Maps whose padding is uneven, with loops whose kernels are of another size."""
    return keras.Sequential(
        [
            keras.Input((None, 8, 8, 2)),
            ConvSNU2D(4, 3, strides=2, padding="same", recurrent=True, **PLAIN),
            ConvSNU2D(5, 2, dilation_rate=2, padding="same", recurrent=True, **PLAIN),
            ConvSNU2D(2, 2, padding="same", decay=1.0, **PLAIN),
        ]
    )


def lines():
    return keras.Sequential(
        [
            keras.Input((None, 12, 2)),
            ConvSNU1D(3, 3, strides=2, padding="same", recurrent=True, **PLAIN),
            EACH(keras.layers.AveragePooling1D(2)),
            keras.layers.Dense(5),
            EACH(keras.layers.Flatten()),
            LIF(15, reset="zero", recurrent=True, threshold=0.3, return_sequences=True),
            keras.layers.Dense(3),
        ]
    )


def plain():
    """Convolutions, normalisation and pooling of Keras, each at every step, then units."""
    normalised = keras.layers.BatchNormalization(moving_mean_initializer="uniform")
    return keras.Sequential(
        [
            keras.Input((None, 8, 7, 3)),
            EACH(keras.layers.Conv2D(6, 3, groups=3, padding="same")),
            normalised,
            EACH(keras.layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same")),
            neurons_on_maps(4 * 4 * 12),
            EACH(keras.layers.Reshape((4, 4, 12))),
            EACH(keras.layers.GlobalAveragePooling2D()),
            SNU(5, **PLAIN),
            keras.layers.Rescaling(2.0),
        ]
    )


def neurons_on_maps(units):
    neurons = LIF(units, reset="zero", decay=0.5, threshold=0.3, return_sequences=True)
    return keras.Sequential([EACH(keras.layers.Reshape((-1,))), neurons])


def padded():
    return keras.Sequential(
        [
            keras.Input((None, 7, 6, 2)),
            EACH(keras.layers.ZeroPadding2D(((1, 2), (0, 1)))),
            EACH(keras.layers.Conv2D(3, 3, strides=2)),
            EACH(keras.layers.Permute((3, 1, 2))),
            EACH(keras.layers.Flatten()),
            LIF(36, reset="zero", recurrent=True, threshold=0.3, return_sequences=True),
            keras.layers.Dense(2),
        ]
    )


def beside():
    given = keras.Input((None, 6, 6, 2))
    added = keras.layers.Add()([given, EACH(keras.layers.Conv2D(2, 3, padding="same"))(given)])
    return keras.Model(given, ConvSNU2D(3, 3, padding="same", **PLAIN)(added))


SLOW = [pytest.param(build, marks=pytest.mark.slow) for build in (strides, images, lines, plain)]


@pytest.mark.parametrize("build", [*SLOW, padded, beside], ids=lambda build: build.__name__)
def test_maps_go_out_and_come_back_with_the_same_spikes(nir, tmp_path, build):
    keras.utils.set_random_seed(1)
    model = build()
    network, path = Network.read(model), tmp_path / "m.nir"
    nir_file.write_nir(network, path, DT)
    found = compare_nir(network, path, Samples.random(network, 0))
    assert found.ok and found.checked and found.outputs > 0
    x = np.random.default_rng(0).normal(size=(2, 12, *model.input_shape[2:])).astype("float32")
    expected = np.asarray(model(x))
    assert np.abs(expected).mean() > 0.02
    again = read_nir(path)
    np.testing.assert_allclose(np.asarray(again(x)), expected, atol=1e-5)
    kinds = [type(layer).__name__ for layer in again.layers]
    if build is strides:
        # Kernels are those of the network again, without the zeros that even out the padding.
        assert kinds[1:] == ["ConvSNU2D"] * 3
        assert again.layers[1].cell.kernel_size == (3, 3)
    assert not any(kind == "LIF" for kind in kinds) or build in (lines, padded, plain)


def test_a_wrong_weight_of_a_convolution_is_found(nir, tmp_path):
    keras.utils.set_random_seed(1)
    network, path = Network.read(beside()), tmp_path / "m.nir"
    said = nir_file.write_nir(network, path, DT)
    (kernel,) = [name for name in said.nodes if name.endswith("_kernel")]
    with h5py.File(path, "r+") as file:
        file[f"node/nodes/{kernel}/weight"][...] *= 1.5
    found = compare_nir(network, path, Samples.random(network, 0))
    assert not found.ok and "differ beyond rounding" in found.problem


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: EACH(keras.layers.MaxPooling2D(2), name="u"), "pooling that takes the largest"),
        (lambda: EACH(keras.layers.AveragePooling2D(3, 1, "same"), name="u"), "zeros out of the"),
        (lambda: EACH(keras.layers.Conv2D(2, 3, activation="relu"), name="u"), "no relu"),
        (lambda: EACH(keras.layers.Conv2DTranspose(2, 3), name="u"), "no form for Conv2DTranspose"),
        (lambda: EACH(keras.layers.Flatten(), name="u"), "as a vector"),
        (lambda: ConvSNU2D(2, 3, lateral_inhibition=True, name="u", **PLAIN), "no lateral"),
        (lambda: keras.layers.Reshape((-1, 6, 6, 1), name="u"), "moves elements between steps"),
    ],
)
def test_maps_that_nir_cannot_express_are_refused_by_name(nir, tmp_path, layer, reason):
    model = keras.Sequential([keras.Input((5, 6, 6, 2)), layer()])
    with pytest.raises(UnsupportedLayersError, match=f"u .*{reason}"):
        nir_file.write_nir(Network.read(model), tmp_path / "m.nir", DT)
    assert list(tmp_path.iterdir()) == []


def test_layers_across_steps_are_told_to_work_at_each_step(nir, tmp_path):
    across = [keras.layers.Conv1D(2, 3, name="u"), keras.layers.GlobalAveragePooling1D(name="u")]
    for layer in across:
        model = keras.Sequential([keras.Input((9, 4)), layer])
        with pytest.raises(UnsupportedLayersError, match=r"u .*across steps"):
            nir_file.write_nir(Network.read(model), tmp_path / "m.nir", DT)
    coded = keras.Sequential([keras.Input((9, 4)), RateCoding(5, name="u")])
    with pytest.raises(UnsupportedLayersError, match=r"u .*no form for RateCoding"):
        nir_file.write_nir(Network.read(coded), tmp_path / "m.nir", DT)


@pytest.mark.parametrize("dt", [0.0, -1.0, float("nan"), float("inf")])
def test_dt_must_be_a_time(tmp_path, dt):
    with pytest.raises(BadInputError, match="positive number of seconds"):
        nir_file.write_nir(Network.read(network()), tmp_path / "m.nir", dt)


def test_without_the_library_the_hint_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(BadInputError, match=r"pip install 'snukeras\[nir\]'"):
        nir_file.write_nir(Network.read(network()), tmp_path / "m.nir", DT)


def test_it_is_part_of_the_export(nir, tmp_path):
    model = network()
    report = export(model, tmp_path / "out", target="onnx", nir_dt=DT)
    assert report.nir.dt == DT and "model.nir" in report.files
    assert verify_folder(tmp_path / "out")["ok"]
    again = export(model, tmp_path / "again", target="onnx", nir_dt=DT)
    assert report.files["model.nir"].sha256 == again.files["model.nir"].sha256


def test_nothing_in_the_file_tells_when_it_was_written(nir, tmp_path):
    nir_file.write_nir(Network.read(network()), tmp_path / "m.nir", DT)
    times = {}
    with h5py.File(tmp_path / "m.nir") as file:
        file.visititems(lambda name, item: times.update({name: h5py.h5o.get_info(item.id).mtime}))
    assert len(times) > 30 and not any(times.values())


@pytest.mark.slow
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
