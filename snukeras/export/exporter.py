"""Export a model to a folder: ONNX, crossbar map, verification, report; and verify a folder."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from snukeras import __version__
from snukeras.export import topology
from snukeras.export import verify as proof
from snukeras.export.container import parse_json
from snukeras.export.crossbar import Fault, load_map, write_map
from snukeras.export.errors import (
    BadInputError,
    ExportError,
    OutputExistsError,
    VerificationError,
)
from snukeras.export.forecast import forecast
from snukeras.export.nir_file import write_nir
from snukeras.export.onnx_model import to_onnx
from snukeras.export.page import page
from snukeras.export.targets import Target, load_target, schema_problem
from snukeras.export.weights import collect, digest

ONNX, STREAMING, MAP = "model.onnx", "model-streaming.onnx", "crossbar.snumap"
CSV, SOURCE, SAMPLES = "devices.csv", "model.keras", "samples.npz"
NIR = "model.nir"
REPORT, PAGE, CHECKSUMS = "report.json", "report.html", "checksums.sha256"

Progress = Callable[[str], None]


def load_model(path) -> keras.Model:
    """Loads a .keras file in Keras's safe mode.

    Raises:
        BadInputError: there is no such file, or Keras cannot or will not load it.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise BadInputError(
            f"{path} is not a .keras file.", "Save the model with model.save('NAME.keras')."
        )
    if not path.is_file():
        raise BadInputError(f"There is no file {path}.", "Give a .keras file or zoo:NAME.")
    if not zipfile.is_zipfile(path):
        raise BadInputError(f"{path} is damaged or not a .keras file.", "Save the model again.")
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its parts raise
        text = str(error).strip().splitlines()
        reason = (text[0] if text else type(error).__name__)[:300]
        hint = "Save it again with the Keras that is installed."
        if "safe" in str(error) or "lambda" in str(error).lower():
            hint = "Replace Lambda layers by registered classes; files load in safe mode only."
        elif "deserialized" in str(error) or "Could not locate class" in str(error):
            hint = "Import the module that registers its classes, and export from Python."
        raise BadInputError(f"Keras cannot load {path}: {reason}", hint) from error
    if not isinstance(model, keras.Model):
        raise BadInputError(f"{path} holds a {type(model).__name__}, not a model.")
    return model


def export(
    model: keras.Model,
    output,
    *,
    target: str | Target = "pcm",
    scale: str = "tensor",
    seed: int = 0,
    pack: bool = False,
    embedding: bool = False,
    faults: tuple[Fault, ...] = (),
    csv: bool = False,
    streaming: bool = False,
    nir_dt: float | None = None,
    samples: proof.Samples | None = None,
    overwrite: bool = False,
    name: str | None = None,
    source=None,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Exports a model into a new folder, verifies what was written, and returns the report.

    Args:
        model: Sequential or functional model of float32 policy.
        output: folder to make; everything is written beside it first and renamed when complete.
        target: "onnx" (no crossbar map), a target's name or file, or a `Target`.
        scale: "tensor" or "column": one scale of conductance per matrix or per column.
        seed: seed of the random input, where there are no samples.
        pack: let small blocks share tiles.
        embedding: map Embedding tables as well.
        faults: stuck devices.
        csv: also write one line per device.
        streaming: also write the one-step form of the ONNX graph.
        nir_dt: also write the network as NIR, with steps of so many seconds; needs the library
            nir.
        samples: input for the comparison; random by default.
        overwrite: replace an earlier export at `output`.
        name: name of the network in the report; the model's by default.
        source: the .keras file the model came from; it is copied into the folder.
        progress: called with what is being done.

    Returns:
        The content of report.json. `report["verification"]["ok"]` says whether all holds.

    Raises:
        UnsupportedLayersError, BadInputError, OutputExistsError.
    """
    hardware = _target(target)
    output = Path(output)
    _check_output(output, overwrite)
    source = None if source is None else Path(source)
    with beside(output, overwrite) as folder:
        progress("reading the weights")
        weights = collect(model, embedding)
        origin: dict[str, Any] = {
            "name": name or model.name,
            "sha256": None if source is None else _sha256(source),
            "weights_sha256": digest(weights),
        }
        if source is None:
            model.save(folder / SOURCE)
        else:
            shutil.copyfile(source, folder / SOURCE)
        metadata = {
            "snukeras.version": __version__,
            "snukeras.source": origin["name"],
            "snukeras.source_sha256": origin["sha256"] or "",
            "snukeras.weights_sha256": origin["weights_sha256"],
        }
        nir = None
        if nir_dt is not None:
            progress("building the NIR graph")
            nir = {"file": NIR, **write_nir(model, folder / NIR, nir_dt)}
        progress("building the ONNX graph")
        proto = to_onnx(model, metadata=metadata)
        (folder / ONNX).write_bytes(proto.SerializeToString(deterministic=True))
        if streaming:
            progress("building the streaming form")
            step = to_onnx(model, streaming=True, metadata=metadata)
            (folder / STREAMING).write_bytes(step.SerializeToString(deterministic=True))
            del step
        if hardware is not None:
            write_map(
                folder / MAP,
                weights,
                hardware,
                scale=scale,
                pack=pack,
                faults=faults,
                seed=seed,
                package=__version__,
                source=origin,
                onnx={"file": ONNX, "sha256": _sha256(folder / ONNX)},
                progress=lambda text: progress(f"mapping {text}"),
            )
        if samples is None:
            samples = proof.Samples.random(model, seed)
        samples.save(folder / SAMPLES)
        verification = _verify(model, folder, samples, embedding, progress)
        report: dict[str, Any] = {
            "format": "snukeras-export-report",
            "version": 1,
            "snukeras": __version__,
            "packages": _packages(),
            "source": origin,
            "parameters": int(model.count_params()),
            "options": {
                "target": hardware.name if hardware else "onnx",
                "scale": scale,
                "seed": seed,
                "pack": pack,
                "embedding": embedding,
                "streaming": streaming,
                "faults": len(faults),
            },
            "network": _describe_network(model),
            "onnx": _describe_onnx(proto),
            "nir": nir,
            "map": _describe_map(folder / MAP) if hardware else None,
            "forecast": None,
            "verification": verification,
        }
        crossbar = None
        if hardware is not None:
            crossbar = load_map(folder / MAP, check=False)
            report["forecast"] = forecast(
                model, crossbar, samples, verification, seed, progress=progress
            )
        progress("writing the report")
        (folder / PAGE).write_text(page(report, crossbar), encoding="utf-8")
        if csv and crossbar is not None:
            progress("writing the list of devices")
            crossbar.write_csv(folder / CSV)
        report["files"] = {
            path.name: {"sha256": _sha256(path), "bytes": path.stat().st_size}
            for path in sorted(folder.iterdir())
        }
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / REPORT).write_text(text + "\n", encoding="utf-8")
        lines = [f"{_sha256(path)}  {path.name}" for path in sorted(folder.iterdir())]
        (folder / CHECKSUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return report


def verify_folder(folder, progress: Progress = lambda text: None) -> dict[str, Any]:
    """Repeats the verification of an export.

    Checks every file's sha256, the crossbar map's own checksums, schema and consistency, that map,
    ONNX and Keras model belong together, and compares them on the samples of the folder again.

    Returns:
        The verification, as in the report.

    Raises:
        VerificationError: a file is missing or changed, or a comparison does not hold.
        BadInputError: there is no such export.
    """
    folder = Path(folder)
    if not (folder / CHECKSUMS).is_file():
        raise BadInputError(
            f"{folder} is not an export (it has no {CHECKSUMS}).",
            "Give the folder that snukeras-export made.",
        )
    progress("comparing checksums")
    _check_sums(folder)

    def damaged(what):
        return VerificationError(f"{folder / REPORT} {what}.", "Export the model again.")

    report = parse_json((folder / REPORT).read_bytes(), damaged)
    options = report.get("options")
    if not isinstance(options, dict):
        raise damaged("has no options")
    progress("loading the Keras model")
    model = load_model(folder / SOURCE)
    try:
        samples = proof.Samples.load(folder / SAMPLES)
    except (OSError, ValueError, KeyError) as error:
        raise VerificationError(f"{folder / SAMPLES} cannot be read: {error}.") from error
    embedding = bool(options.get("embedding"))
    verification = _verify(model, folder, samples, embedding, progress)
    if not verification["ok"]:
        raise VerificationError(
            f"{folder} does not hold: {', '.join(failures(verification))}.",
            "Export the model again.",
        )
    return verification


def failures(verification: dict[str, Any]) -> list[str]:
    """What a verification found wrong, in words."""
    found = []
    onnx = verification["onnx"]
    for name, output in onnx["outputs"].items():
        if not output["ok"]:
            found.append(f"ONNX output {name} differs by {output['max_difference']:.3g}")
    for unit in onnx["units"]:
        if unit["contradictions"]:
            found.append(
                f"{unit['contradictions']} spikes of {unit['name']} differ beyond rounding"
            )
        if not unit["ok"]:
            found.append(
                f"{unit['name']} differs by {unit['max_difference']:.3g} in its outputs and "
                f"{unit['max_potential_difference']:.3g} in its potentials"
            )
    streaming = verification["streaming"]
    if streaming is not None and not streaming["ok"]:
        found.append(f"the streaming form differs by {streaming['max_difference']:.3g}")
    mapped = verification["map"]
    if mapped is not None:
        for matrix in mapped["matrices"]:
            if not matrix["ok"]:
                found.append(f"weights of {matrix['name']} differ from the map")
        if not (mapped["parameters_equal"] and mapped["complete"]):
            found.append("digital parameters differ from the map")
        if not mapped["belongs"]:
            found.append("the map belongs to another ONNX file or other weights")
    return found


def _verify(model, folder, samples, embedding, progress):
    """All comparisons of a folder's files with the Keras model."""
    progress("comparing ONNX Runtime with Keras")
    path = str(folder / ONNX)
    try:
        onnx = proof.compare_onnx(model, path, samples)
    except ExportError:
        raise
    except Exception as error:  # Keras and ONNX Runtime raise whatever their parts raise
        reason = str(error).strip().splitlines()[0][:300]
        raise ExportError(
            f"The model or its ONNX graph does not run on {samples.kind}: {reason}",
            "Give input that fits with samples= (Python) or --samples FILE.npz.",
        ) from error
    streaming = None
    if (folder / STREAMING).is_file():
        progress("comparing the streaming form")
        streaming = proof.compare_streaming(path, str(folder / STREAMING), samples)
    crossbar, mapped = None, None
    if (folder / MAP).is_file():
        progress("checking the crossbar map")
        crossbar = load_map(folder / MAP)
        mapped = proof.compare_map(model, crossbar, embedding)
        belongs = crossbar.description["onnx"] == {"file": ONNX, "sha256": _sha256(folder / ONNX)}
        own = crossbar.description["source"]["weights_sha256"]
        belongs = belongs and own == digest(collect(model, embedding))
        mapped["belongs"] = belongs
        mapped["ok"] = mapped["ok"] and belongs
    progress("computing the likelihood of the samples")
    nll = proof.negative_log_likelihoods(model, path, crossbar, samples)
    parts = [part for part in (onnx, streaming, mapped) if part is not None]
    return {
        "ok": all(part["ok"] for part in parts),
        "samples": samples.kind,
        "batches": len(samples.batches),
        "onnx": onnx,
        "streaming": streaming,
        "map": mapped,
        "nll_nats_per_step": nll,
    }


def read_faults(path) -> tuple[Fault, ...]:
    """Stuck devices from a JSON file: {"format": "snukeras-faults", "version": 1, "stuck": [...]}.

    Each entry has tile, word_line, bit_line and conductance_uS.
    """

    def error(what):
        return BadInputError(f"{path} {what}.", "See export/README.md, section Faults.")

    try:
        data = parse_json(Path(path).read_bytes(), error)
    except OSError as problem:
        raise error(f"cannot be read: {problem.strerror or problem}") from problem
    wrong = schema_problem(data, "faults.schema.json")
    if wrong:
        raise error(f"does not obey export/faults.schema.json: {wrong}")
    return tuple(
        Fault(f["tile"], f["word_line"], f["bit_line"], float(f["conductance_uS"]))
        for f in data["stuck"]
    )


def _target(target):
    if isinstance(target, Target):
        return target
    return None if target == "onnx" else load_target(target)


def _check_output(output, overwrite):
    if not output.parent.is_dir():
        raise BadInputError(f"There is no folder {output.parent}.", "Make it first.")
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir() or output.is_symlink():
        raise OutputExistsError(f"{output} exists and is not a folder.", "Choose another --output.")
    if not any(output.iterdir()):
        return
    if not (output / CHECKSUMS).is_file():
        raise OutputExistsError(
            f"{output} exists and is not an export, so it is left alone.",
            "Choose another --output.",
        )
    if not overwrite:
        raise OutputExistsError(f"{output} exists.", "Add --overwrite, or choose another --output.")


@contextlib.contextmanager
def beside(output, overwrite) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its place when all is done."""
    folder = output.parent / f".{output.name}.part-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        old = None
        _check_output(output, overwrite)
        if output.is_dir() and any(output.iterdir()):
            old = output.parent / f".{output.name}.old-{os.getpid()}"
            os.rename(output, old)
        try:
            os.rename(folder, output)
        except BaseException:
            if old is not None:
                os.rename(old, output)
            raise
        if old is not None:
            shutil.rmtree(old)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_sums(folder):
    """Compares every file with the list of checksums."""
    hint = "Export the model again."
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise VerificationError(f"{folder / CHECKSUMS} was changed.", hint) from error
    listed = {}
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)", line)
        if match is None or match[2] in listed:
            raise VerificationError(f"{folder / CHECKSUMS} was changed: {line[:80]!r}.", hint)
        listed[match[2]] = match[1]
    text = "".join(f"{value}  {name}\n" for name, value in listed.items())
    if (folder / CHECKSUMS).read_bytes() != text.encode():
        raise VerificationError(f"{folder / CHECKSUMS} was changed.", hint)
    for name in (REPORT, PAGE, ONNX, SOURCE, SAMPLES):
        if name not in listed:
            raise VerificationError(f"{folder / CHECKSUMS} does not list {name}.", hint)
    present = {path.name for path in folder.iterdir()} - {CHECKSUMS}
    known = {ONNX, STREAMING, NIR, MAP, CSV, SOURCE, SAMPLES, REPORT, PAGE}
    for name in sorted((present & known) - set(listed)):
        raise VerificationError(f"{folder / name} is not in {CHECKSUMS}.", hint)
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            raise VerificationError(f"{path} is missing.", hint)
        if _sha256(path) != expected:
            raise VerificationError(f"{path} was changed: it has another sha256.", hint)


def _sha256(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packages():
    names = ("keras", "tensorflow", "numpy", "onnx", "tf2onnx", "onnxruntime")
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _describe_network(model):
    """The calls of the network in order: {"name", "class", "inputs", "parameters"}."""
    plan = topology.read(model)
    given = {ref.key: name for name, ref in plan.inputs}
    return [
        {
            "name": call.name,
            "class": type(call.op).__name__,
            "inputs": [given.get(ref.key, ref.key[0]) for ref in call.inputs],
            "parameters": call.op.count_params() if hasattr(call.op, "count_params") else 0,
        }
        for call in plan.calls
    ]


def _describe_onnx(proto):
    def ends(values):
        return [
            {
                "name": value.name,
                "shape": [
                    dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim
                ],
            }
            for value in values
        ]

    return {
        "file": ONNX,
        "opset": next(entry.version for entry in proto.opset_import if entry.domain == ""),
        "ir_version": proto.ir_version,
        "nodes": len(proto.graph.node),
        "inputs": ends(proto.graph.input),
        "outputs": ends(proto.graph.output),
    }


def _describe_map(path):
    crossbar = load_map(path, check=False)
    tiles = crossbar.description["tiles"]
    used = sum(tile["devices_used"] for tile in tiles)
    return {
        "file": MAP,
        "target": crossbar.description["target"],
        **crossbar.totals,
        "adders": len(crossbar.description["adders"]),
        "utilisation": used / sum(tile["devices"] for tile in tiles),
        "tile_utilisation": [tile["devices_used"] / tile["devices"] for tile in tiles],
        "faults": crossbar.description["faults"],
    }


def samples_from_file(path, model: keras.Model) -> proof.Samples:
    """Samples from the user's .npz: one array per model input, by name or in the order stored."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read as .npz: {error}.") from error
    names = [name for name, _ in topology.read(model).inputs]
    if set(names) <= set(arrays):
        return proof.Samples(Path(path).name, [[arrays[name] for name in names]])
    if len(arrays) == len(names):
        return proof.Samples(Path(path).name, [list(arrays.values())])
    raise BadInputError(
        f"{path} has arrays {', '.join(arrays)}; the model has inputs {', '.join(names)}."
    )
