"""Verify an export: now, when it is written, and later, from its folder."""

from pathlib import Path
from typing import Any

from snukeras.export.crossbar.container import parse_json
from snukeras.export.crossbar.load import load_map
from snukeras.export.errors import BadInputError, ExportError, VerificationError
from snukeras.export.folder import (
    CHECKSUMS,
    MAP,
    ONNX,
    REPORT,
    SAMPLES,
    SOURCE,
    STREAMING,
    Progress,
    check_sums,
    sha256_of,
)
from snukeras.export.loading import load_model
from snukeras.export.samples import Samples
from snukeras.export.verify.metric import metric_of
from snukeras.export.verify.onnx import compare_onnx, compare_streaming
from snukeras.export.verify.weights import compare_map
from snukeras.network.weights import collect, digest


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
    check_sums(folder)

    def damaged(what):
        return VerificationError(f"{folder / REPORT} {what}.", "Export the model again.")

    report = parse_json((folder / REPORT).read_bytes(), damaged)
    options = report.get("options")
    if not isinstance(options, dict):
        raise damaged("has no options")
    progress("loading the Keras model")
    model = load_model(folder / SOURCE)
    try:
        samples = Samples.load(folder / SAMPLES)
    except (OSError, ValueError, KeyError) as error:
        raise VerificationError(f"{folder / SAMPLES} cannot be read: {error}.") from error
    embedding = bool(options.get("embedding"))
    verification = verify(model, folder, samples, embedding, progress)
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


def verify(model, folder, samples, embedding, progress):
    """All comparisons of a folder's files with the Keras model."""
    progress("comparing ONNX Runtime with Keras")
    path = str(folder / ONNX)
    try:
        onnx = compare_onnx(model, path, samples)
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
        streaming = compare_streaming(path, str(folder / STREAMING), samples)
    crossbar, mapped = None, None
    if (folder / MAP).is_file():
        progress("checking the crossbar map")
        crossbar = load_map(folder / MAP)
        mapped = compare_map(model, crossbar, embedding)
        belongs = crossbar.description["onnx"] == {"file": ONNX, "sha256": sha256_of(folder / ONNX)}
        own = crossbar.description["source"]["weights_sha256"]
        belongs = belongs and own == digest(collect(model, embedding))
        mapped["belongs"] = belongs
        mapped["ok"] = mapped["ok"] and belongs
    progress("computing the metric of the samples")
    metric = metric_of(model, path, crossbar, samples)
    parts = [part for part in (onnx, streaming, mapped) if part is not None]
    return {
        "ok": all(part["ok"] for part in parts),
        "samples": samples.kind,
        "batches": len(samples.batches),
        "onnx": onnx,
        "streaming": streaming,
        "map": mapped,
        "metric": metric,
    }
