"""NIR files from outside: whatever is wrong with one, the reader says so in one sentence."""

import os
import shutil
import time

import h5py
import numpy as np
import pytest
from nir_files import chain, lif, linear, write

from snukeras.export import BadInputError, UnsupportedLayersError, rate_nir, read_nir

INPUT = {"type": "Input", "shape": np.array([4])}
OUTPUT = {"type": "Output", "shape": np.array([3])}
PLAIN = {"input": INPUT, "fc": linear(), "lif": lif(), "output": OUTPUT}
EDGES = chain("input", "fc", "lif", "output")
CONV = {
    "type": "Conv2d", "weight": np.ones((2, 1, 3, 3)), "bias": np.zeros(2), "stride": [1, 1],
    "padding": [0, 0], "dilation": [1, 1], "groups": 1,
}  # fmt: skip

NETWORKS = {
    "no edge": (PLAIN, chain("input", "fc", "lif"), "No edge leads to the node 'output'"),
    "missing edge": (PLAIN, [("input", "fc"), ("lif", "output")], "No edge leads to .* 'lif'"),
    "edge to nowhere": (PLAIN, [*EDGES, ("lif", "ghost")], "'ghost', which is no node"),
    "two inputs": (
        {**PLAIN, "other": INPUT}, [*EDGES, ("other", "fc")], "one Input node.*2: input, other"
    ),
    "no input": (
        {"lif": lif(), "output": OUTPUT}, [("lif", "output"), ("output", "lif")], "one Input.*: 0"
    ),
    "edge into the input": (PLAIN, [*EDGES, ("lif", "input")], "An edge leads to the Input"),
    "circle without neuron": (
        {**PLAIN, "a": linear(4, 4), "b": linear(4, 4)},
        [*chain("input", "a", "b", "fc", "lif", "output"), ("b", "a")],
        "'a', 'b' .* in a circle without a neuron",
    ),
    "wrong width": ({**PLAIN, "fc": linear(3, 5)}, EDGES, r"shape \(3, 5\), and gets \(4,\)"),
    "wrong parameters": ({**PLAIN, "lif": lif(2)}, EDGES, r"'lif' \(LIF\) has .* gets \(3,\)"),
    "wrong loop": (
        {**PLAIN, "w": linear(2, 3)}, [*EDGES, ("lif", "w"), ("w", "lif")],
        "recurrent product 'w' .* does not fit its 3 neurons",
    ),
    "nan": ({**PLAIN, "fc": linear(weight=np.full((3, 4), np.nan))}, EDGES, "'fc' .* NaN or inf"),
    "infinity": ({**PLAIN, "lif": lif(tau=np.full(3, np.inf))}, EDGES, "'lif' .* NaN or infinity"),
    "negative tau": ({**PLAIN, "lif": lif(tau=-np.ones(3))}, EDGES, "positive time constants"),
    "tau below the step": ({**PLAIN, "lif": lif(tau=np.full(3, 1e-5))}, EDGES, "below the step"),
    "field missing": ({**PLAIN, "fc": {"type": "Linear"}}, EDGES, "'fc' .Linear. has no 'weight'"),
    "no type": ({**PLAIN, "fc": {"weight": np.ones((3, 4))}}, EDGES, "'fc' has no type"),
    "text for numbers": ({**PLAIN, "fc": linear(weight="x")}, EDGES, "a text for 'weight'"),
    "sum of other sizes": (
        {**PLAIN, "more": linear(2, 4)}, [*EDGES, ("input", "more"), ("more", "lif")],
        r"gets \(3,\) from 'fc' and \(2,\) from 'more'",
    ),
    "kernel larger than map": (
        {"input": {"type": "Input", "shape": [1, 2, 2]}, "conv": CONV, "output": OUTPUT},
        chain("input", "conv", "output"), "a kernel larger than the map",
    ),
    "wrong channels": (
        {"input": {"type": "Input", "shape": [2, 8, 8]}, "conv": CONV, "output": OUTPUT},
        chain("input", "conv", "output"), r"in 1 groups, and gets \(2, 8, 8\)",
    ),
    "broken stride": (
        {"input": {"type": "Input", "shape": [1, 8, 8]}, "conv": {**CONV, "stride": [0.5, 1]},
         "output": OUTPUT},
        chain("input", "conv", "output"), "must have 2 integers for 'stride'",
    ),
    "more recurrent neurons than fit": (
        {"input": {"type": "Input", "shape": [10**6]}, "output": OUTPUT,
         "lif": {"type": "IF", "r": 1.0, "v_threshold": 1.0}},
        [*chain("input", "lif", "output"), ("lif", "lif")], "1,000,000 recurrent neurons",
    ),
    "larger than fits": (
        {**PLAIN, "input": {"type": "Input", "shape": [10**9]}}, EDGES, "has the shape",
    ),
    "padding without end": (
        {"input": {"type": "Input", "shape": [1, 8, 8]}, "output": OUTPUT,
         "conv": {**CONV, "padding": [10**6, 10**6]}},
        chain("input", "conv", "output"), "are the most that is read",
    ),
    "groups without end": (
        {"input": {"type": "Input", "shape": [10**6, 1, 1]}, "output": OUTPUT,
         "conv": {**CONV, "weight": np.ones((10**6, 1, 1, 1)), "groups": 10**6}},
        chain("input", "conv", "output"), "too many for one weight",
    ),
    "empty shape": ({**PLAIN, "input": {"type": "Input", "shape": [0]}}, EDGES, "has the shape"),
}  # fmt: skip


def sentence(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 500 and "Traceback" not in text
    return text


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_does_not_fit_together(name, tmp_path):
    nodes, edges, words = NETWORKS[name]
    path = write(tmp_path / "network.nir", nodes, edges)
    with pytest.raises(BadInputError, match=words) as error:
        read_nir(path, dt=1e-3)
    assert "cannot be built" not in sentence(error)


@pytest.mark.parametrize(
    ("nodes", "edges", "words"),
    [
        ({**PLAIN, "fc": {"type": "Quantum"}, "x": {"type": "Delay", "delay": [1.0]}},
         chain("input", "fc", "x", "lif", "output"), "fc .Quantum: .*; x .Delay: "),
        ({**PLAIN, "w": linear(3, 3), "second": lif()},
         [*EDGES, *chain("lif", "second", "w", "lif")], "circle leads through several neurons"),
        ({**PLAIN, "w": linear(3, 3)}, [*EDGES, *chain("lif", "w", "lif"), ("w", "output")],
         "'w' is read from outside the loop"),
        ({**PLAIN, "w": linear(3, 3), "u": linear()},
         [*EDGES, *chain("lif", "w", "lif"), *chain("input", "u", "w")],
         "'u' feeds the recurrent product 'w'"),
    ],
)  # fmt: skip
def test_nodes_that_have_no_form_are_all_named(nodes, edges, words, tmp_path):
    path = write(tmp_path / "network.nir", nodes, edges)
    with pytest.raises(UnsupportedLayersError, match=words):
        read_nir(path, dt=1e-3)
    rating = rate_nir(path, dt=1e-3)
    assert rating.count("unsupported") >= 1 and len(rating.nodes) == len(nodes)
    assert "unsupported" in str(rating)


def damaged(path, how):
    """Make a file that is no network."""
    if how == "not hdf5":
        path.write_bytes(b"\x89PNG, or so" * 100)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "missing":
        path.unlink()
    else:
        with h5py.File(path, "r+") as file:
            nodes = file["node/nodes"]
            if how == "soft link":
                del nodes["fc"]
                nodes["fc"] = h5py.SoftLink("/node/nodes/fc")
            elif how == "external link":
                del nodes["fc/weight"]
                nodes["fc/weight"] = h5py.ExternalLink("/etc/passwd", "/x")
            elif how == "graph in itself":
                del nodes["fc"]
                nodes["fc"] = file["node"]
            elif how == "huge":
                del nodes["fc/weight"]
                nodes.create_dataset("fc/weight", (3, 2**40), "f8", chunks=(1, 2**16))
            elif how == "no graph":
                del file["node"]
            elif how == "a node alone":
                file.move("node", "old")
                file.copy("old/nodes/fc", "node")
            elif how == "edges are numbers":
                del file["node/edges"]
                file["node/edges"] = np.zeros(3)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("not hdf5", "not HDF5"),
        ("empty", "not HDF5"),
        ("truncated", "cannot be read: .*truncated"),
        ("folder", "a folder, a pipe or a device"),
        ("pipe", "a folder, a pipe or a device"),
        ("missing", "There is no file"),
        ("soft link", "'fc' of the graph is a link"),
        ("external link", "'weight' of the node 'fc' is a link"),
        ("graph in itself", "graphs 8 deep"),
        ("huge", "unpacks to more than"),
        ("no graph", "no graph at 'node'"),
        ("a node alone", "a single Linear node"),
        ("edges are numbers", "not pairs of names"),
    ],
)
def test_a_file_that_is_no_network(how, words, tmp_path):
    path = write(tmp_path / "network.nir", PLAIN, EDGES)
    damaged(path, how)
    with pytest.raises(BadInputError, match=words) as error:
        read_nir(path, dt=1e-3)
    sentence(error)


def test_any_byte_may_be_wrong(tmp_path):
    path = write(tmp_path / "network.nir", PLAIN, EDGES)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for place in generator.integers(0, len(data), 20):
            data[place] = generator.integers(0, 256)
        path.write_bytes(bytes(data))
        try:
            rating = rate_nir(path, dt=1e-3)
        except BadInputError as error:
            assert "\n" not in str(error)
        else:
            assert len(rating.nodes) <= 4


@pytest.mark.slow
def test_many_nodes_and_edges_take_no_time(tmp_path):
    names = [f"n{i}" for i in range(1500)]
    nodes = {**PLAIN, **{name: linear(4, 4) for name in names}}
    edges = [*EDGES, *[("input", name) for name in names], *chain(*names)]
    path = write(tmp_path / "network.nir", nodes, edges)
    start = time.monotonic()
    rating = rate_nir(path, dt=1e-3)  # all of them lead nowhere
    assert sum("no output" in node.note for node in rating.nodes) == 1500
    nodes |= {f"m{i}": linear(4, 4) for i in range(600)}
    with pytest.raises(BadInputError, match="more than 2,000 nodes"):
        rate_nir(write(path, nodes, edges), dt=1e-3)
    assert time.monotonic() - start < 10


def test_the_writer_is_asked_for_where_numbers_do_not_tell_it(tmp_path):
    path = write(tmp_path / "network.nir", PLAIN, EDGES)
    with pytest.raises(BadInputError, match="does not say which step of time") as error:
        read_nir(path)
    assert "--writer" in error.value.hint and "--dt" in error.value.hint
    for options in ({"writer": "brian"}, {"dt": 0.0}, {"dt": float("nan")}, {"reset": "soft"}):
        with pytest.raises(BadInputError, match="Received"):
            read_nir(path, **{"dt": 1e-3, **options})


def test_the_command_says_it_in_a_line(tmp_path, capsys, monkeypatch):
    from snukeras.export import command

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "network.nir", {**PLAIN, "fc": linear(3, 5)}, EDGES)
    assert command.main(["network.nir", "--dt", "1e-3"]) == 2
    write(tmp_path / "network.nir", {**PLAIN, "fc": {"type": "Quantum"}}, EDGES)
    assert command.main(["network.nir", "--dt", "1e-3"]) == 3
    shutil.copy("network.nir", "m.keras")
    assert command.main(["m.keras", "--writer", "norse"]) == 2
    err = capsys.readouterr().err
    assert "shape (3, 5)" in err and "fc (Quantum" in err and "--writer is for" in err
    assert "Traceback" not in err and [p.name for p in tmp_path.iterdir()] != []
