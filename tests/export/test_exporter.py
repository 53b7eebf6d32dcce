"""Export to a folder: complete or not at all, the same every time, and provable later."""

import json
import shutil

import keras
import numpy as np
import pytest

from snukeras.export.crossbar.faults import Fault
from snukeras.export.errors import (
    BadInputError,
    ExportError,
    ExportWarning,
    OutputExistsError,
    UnsupportedLayersError,
    VerificationError,
)
from snukeras.export.exporter import export
from snukeras.export.folder import sha256_of
from snukeras.export.loading import load_model
from snukeras.export.samples import Samples, samples_from_file
from snukeras.export.verify.folder import verify_folder
from snukeras.layers import SNU


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None, 6), name="x"),
            SNU(10, return_sequences=True, threshold=0.2, name="snu"),
            keras.layers.Dense(3, activation="sigmoid", name="out"),
        ],
        name="small",
    )


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "small"
    report = export(model, folder, csv=True, streaming=True, seed=3)
    return folder, report


def test_what_is_there(exported):
    folder, report = exported
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "model-streaming.onnx",
        "crossbar.snumap",
        "devices.csv",
        "model.keras",
        "samples.npz",
        "report.html",
        "report.json",
        "checksums.sha256",
    }
    assert json.loads((folder / "report.json").read_text()) == report.to_dict()
    assert report["verification"]["ok"] and report["map"]["weights"] == 90
    assert report["verification"]["streaming"]["max_difference"] < 1e-6
    assert report["verification"]["metric"] is None
    assert not list(folder.parent.glob(".*"))


def test_verify_later(exported):
    assert verify_folder(exported[0])["ok"]


def test_one_changed_byte_anywhere_is_noticed(exported, tmp_path):
    folder, _ = exported
    for name in sorted(path.name for path in folder.iterdir()):
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        data = bytearray((copy / name).read_bytes())
        for position in (0, len(data) // 2, len(data) - 1):
            changed = bytearray(data)
            changed[position] ^= 1
            (copy / name).write_bytes(changed)
            with pytest.raises(VerificationError, match=r"changed|checksums"):
                verify_folder(copy)


def test_missing_and_smuggled_files(exported, tmp_path):
    folder, _ = exported
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "crossbar.snumap").unlink()
    with pytest.raises(VerificationError, match=r"crossbar.snumap is missing"):
        verify_folder(copy)
    with pytest.raises(BadInputError, match="not an export"):
        verify_folder(tmp_path)


@pytest.mark.slow
def test_checksums_that_were_made_to_fit(exported, model, tmp_path):
    """A whole file exchanged, with its checksum: the parts no longer belong together."""
    keras.utils.set_random_seed(1)  # other weights than the model's
    other = keras.models.clone_model(model)
    export(other, tmp_path / "other")
    folder = tmp_path / "copy"
    shutil.copytree(tmp_path / "other", folder)
    name = "crossbar.snumap"
    shutil.copyfile(exported[0] / name, folder / name)
    sums = (folder / "checksums.sha256").read_text().splitlines()
    new = sha256_of(folder / name)
    text = "\n".join(f"{new}  {name}" if line.endswith(name) else line for line in sums) + "\n"
    (folder / "checksums.sha256").write_text(text)
    with pytest.raises(VerificationError, match="belongs to another ONNX file"):
        verify_folder(folder)


@pytest.mark.slow
def test_a_map_of_the_same_weights_but_another_onnx_file(exported, model, tmp_path):
    export(model, tmp_path / "other", name="renamed")
    folder, name = tmp_path / "other", "crossbar.snumap"
    shutil.copyfile(exported[0] / name, folder / name)
    sums = (folder / "checksums.sha256").read_text().splitlines()
    new = sha256_of(folder / name)
    text = "\n".join(f"{new}  {name}" if line.endswith(name) else line for line in sums) + "\n"
    (folder / "checksums.sha256").write_text(text)
    with pytest.raises(VerificationError) as caught:
        verify_folder(folder)
    assert "hold: the map belongs to another ONNX file or other weights." in str(caught.value)


def test_paths_in_the_list_of_checksums(exported, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(exported[0], copy)
    with open(copy / "checksums.sha256", "a") as file:
        file.write("0" * 64 + "  ../outside\n")
    with pytest.raises(VerificationError, match="was changed"):
        verify_folder(copy)


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes(exported, model, tmp_path):
    export(model, tmp_path / "again", csv=True, streaming=True, seed=3)
    for name in ("model.onnx", "model-streaming.onnx", "crossbar.snumap", "devices.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (exported[0] / name).read_bytes(), name


def test_nothing_is_overwritten_unasked(exported, model, tmp_path):
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export(model, exported[0])
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match="not an export"):
        export(model, mine, overwrite=True)
    assert (mine / "thesis.tex").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="not a folder"):
        export(model, tmp_path / "file", overwrite=True)
    with pytest.raises(BadInputError, match="no folder"):
        export(model, tmp_path / "a" / "b")


def test_overwrite_replaces_all(model, tmp_path):
    folder = tmp_path / "out"
    export(model, folder)
    assert (folder / "crossbar.snumap").exists()
    export(model, folder, target="onnx", overwrite=True)
    assert not (folder / "crossbar.snumap").exists()
    assert verify_folder(folder)["ok"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_an_interrupted_export_leaves_nothing(model, tmp_path, error):
    def stop(text):
        if text.startswith("mapping"):
            raise error

    with pytest.raises(error):
        export(model, tmp_path / "out", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_overwrite_keeps_the_old(model, tmp_path):
    folder = tmp_path / "out"
    export(model, folder, target="onnx")
    before = (folder / "report.json").read_bytes()

    def stop(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(model, folder, overwrite=True, progress=stop)
    assert (folder / "report.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_unsupported_layers_leave_nothing(tmp_path):
    inputs = keras.Input((None, 6))
    bad = keras.Model(inputs, SNU(2, state_activation=keras.ops.sin)(inputs))
    with pytest.raises(UnsupportedLayersError):
        export(bad, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_stuck_devices_are_reported(model, tmp_path):
    faults = tuple(Fault(0, line, bit, 0.0) for line in range(6) for bit in range(256))
    report = export(model, tmp_path / "out", faults=faults, pack=True)
    assert len(report["map"]["faults"]) > 50
    assert any(abs(fault["weight_error"]) > 0.01 for fault in report["map"]["faults"])
    assert verify_folder(tmp_path / "out")["ok"]


@pytest.mark.slow
def test_source_file_is_kept_and_hashed(model, tmp_path):
    path = tmp_path / "my.keras"
    model.save(path)
    report = export(load_model(path), tmp_path / "out", source=path, name="my.keras")
    assert (tmp_path / "out" / "model.keras").read_bytes() == path.read_bytes()
    assert report["source"]["sha256"] == sha256_of(path)


def test_bad_model_files(tmp_path):
    with pytest.raises(BadInputError, match="no file"):
        load_model(tmp_path / "a.keras")
    with pytest.raises(BadInputError, match=r"not a \.keras file"):
        load_model(tmp_path / "a.h5")
    (tmp_path / "a.keras").write_bytes(b"PK nothing")
    with pytest.raises(BadInputError, match="damaged"):
        load_model(tmp_path / "a.keras")
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save(tmp_path / "l.keras")
    with pytest.raises(BadInputError, match="safe mode only"):
        load_model(tmp_path / "l.keras")
    data = bytearray((tmp_path / "l.keras").read_bytes())
    (tmp_path / "cut.keras").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInputError):
        load_model(tmp_path / "cut.keras")


def test_samples_that_do_not_fit(model, tmp_path):
    np.savez(tmp_path / "s.npz", x=np.zeros((2, 5, 7), "float32"))
    with pytest.raises(BadInputError, match=r"shape \(any, any, 6\)"):
        samples_from_file(tmp_path / "s.npz", model)
    samples = Samples("mine", [[np.zeros((2, 5, 7), "float32")]])
    with pytest.raises(ExportError, match="does not run on mine"):
        export(model, tmp_path / "out", samples=samples)
    assert not (tmp_path / "out").exists()
    np.savez(tmp_path / "s.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(BadInputError, match="the model has inputs x"):
        samples_from_file(tmp_path / "s.npz", model)


@pytest.mark.slow
def test_chorale_networks_get_their_likelihood(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, 88)), SNU(9, return_sequences=True), keras.layers.Dense(88, "sigmoid")]
    )
    rolls = [(np.random.default_rng(0).random((9, 88)) < 0.05).astype("uint8")]
    samples = Samples.songs(rolls, "test songs")
    report = export(model, tmp_path / "out", samples=samples)
    nll = report["verification"]["metric"]["values"]
    assert set(nll) == {"keras", "onnx", "map"}
    assert nll["onnx"] == pytest.approx(nll["keras"], abs=1e-3) and 50 < nll["keras"] < 70
    assert report["verification"]["samples"] == "test songs"


def test_a_csv_and_a_nir_file_are_verified_too(exported, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(exported[0], copy)
    lines = (copy / "devices.csv").read_text().splitlines(keepends=True)
    for changed in (lines[:-1], [*lines, lines[-1]], [*lines[:9], "0,0,0\n", *lines[10:]]):
        (copy / "devices.csv").write_text("".join(changed))
        sums = (copy / "checksums.sha256").read_text().splitlines()
        new = f"{sha256_of(copy / 'devices.csv')}  devices.csv"
        text = "".join(f"{new if line.endswith('devices.csv') else line}\n" for line in sums)
        (copy / "checksums.sha256").write_text(text)
        with pytest.raises(VerificationError, match="list of devices differs from the map in line"):
            verify_folder(copy)


def test_layers_that_verify_cannot_load_are_named_at_export(tmp_path):
    inputs = keras.Input((4,))
    doubled = keras.layers.Lambda(lambda x: 2.0 * x, name="double")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(doubled))
    with pytest.warns(ExportWarning, match="verify cannot load the model of .*Lambda"):
        report = export(model, tmp_path / "out", chips=1, times=(25.0,))
    assert report.verification.ok and "Lambda" in report.verification.reload
    with pytest.raises(BadInputError, match="safe mode"):
        verify_folder(tmp_path / "out")


@keras.saving.register_keras_serializable(package="tests")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


def test_classes_that_only_the_users_code_knows_are_named_at_export(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Twice(), keras.layers.Dense(2)])
    with pytest.warns(ExportWarning, match="tests>Twice"):
        report = export(model, tmp_path / "out", chips=1, times=(25.0,))
    assert "verify_folder from Python" in report.verification.reload
    assert "tests&gt;Twice" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.some_cases(1)
@pytest.mark.parametrize("axis", [-1, None])
def test_a_normalization_is_exported(tmp_path, axis):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(1).normal(2, 3, (3, 7, 5)).astype("float32")
    layer = keras.layers.Normalization(axis=axis, name="norm")
    layer.adapt(x)
    unit = SNU(4, return_sequences=True, threshold=0.2, name="snu")
    out = keras.layers.Dense(2, "softmax", name="out")
    model = keras.Sequential([keras.Input((None, 5), name="x"), layer, unit, out])
    targets = np.asarray(model(x)).argmax(-1)
    samples = Samples("mine", [[x]], [targets], "accuracy", asked=True)
    report = export(model, tmp_path / "out", samples=samples, streaming=True, chips=1)
    assert report.verification.ok and report.verification.streaming.max_difference < 1e-6
    assert report.verification.metric.values == {"keras": 100.0, "onnx": 100.0, "map": 100.0}
    assert verify_folder(tmp_path / "out").ok


def test_targets_that_cannot_be_measured_are_an_error(tmp_path):
    """The outputs are logits: no probabilities to take a logarithm of."""
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2, "linear")])
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32") * 9
    np.savez(tmp_path / "s.npz", x=x, targets=np.zeros(4, int))
    samples = samples_from_file(tmp_path / "s.npz", model, "cross_entropy")
    with pytest.raises(BadInputError, match="needs outputs between 0 and 1"):
        export(model, tmp_path / "out", samples=samples)
    assert [path.name for path in tmp_path.iterdir()] == ["s.npz"]


@pytest.mark.parametrize("seed", [-1, 1.5, 2**63, True])
def test_a_seed_that_is_none(model, tmp_path, seed):
    with pytest.raises(BadInputError, match="seed must be an integer from 0"):
        export(model, tmp_path / "out", seed=seed)
