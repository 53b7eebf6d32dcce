"""Export a model to a folder: ONNX, crossbar map, verification, report."""

import contextlib
import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import keras

from snukeras import __version__
from snukeras.export.crossbar.device_list import write_device_list
from snukeras.export.crossbar.faults import Fault
from snukeras.export.crossbar.load import load_map
from snukeras.export.crossbar.targets import Target, load_target
from snukeras.export.crossbar.writer import write_map
from snukeras.export.folder import (
    CHECKSUMS,
    CSV,
    MAP,
    NIR,
    ONNX,
    PAGE,
    REPORT,
    SAMPLES,
    SOURCE,
    STREAMING,
    Progress,
    beside,
    check_output,
    sha256_of,
)
from snukeras.export.nir import write_nir
from snukeras.export.onnx.build import to_onnx
from snukeras.export.report.forecast import forecast
from snukeras.export.report.page import page
from snukeras.export.samples import Samples
from snukeras.export.verify.folder import verify
from snukeras.network import topology
from snukeras.network.weights import collect, digest


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
    samples: Samples | None = None,
    overwrite: bool = False,
    name: str | None = None,
    source=None,
    metrics: dict[str, Any] | None = None,
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
        metrics: known figures of the network (names, numbers, texts), kept in the metadata of the
            ONNX files and in the report.
        progress: called with what is being done.

    Returns:
        The content of report.json. `report["verification"]["ok"]` says whether all holds.

    Raises:
        UnsupportedLayersError, BadInputError, OutputExistsError.
    """
    hardware = _target(target)
    output = Path(output)
    check_output(output, overwrite)
    source = None if source is None else Path(source)
    with beside(output, overwrite) as folder:
        progress("reading the weights")
        weights = collect(model, embedding)
        origin: dict[str, Any] = {
            "name": name or model.name,
            "sha256": None if source is None else sha256_of(source),
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
        if metrics:
            metadata["snukeras.metrics"] = json.dumps(metrics, allow_nan=False)
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
                onnx={"file": ONNX, "sha256": sha256_of(folder / ONNX)},
                progress=lambda text: progress(f"mapping {text}"),
            )
        if samples is None:
            samples = Samples.random(model, seed)
        samples.save(folder / SAMPLES)
        verification = verify(model, folder, samples, embedding, progress)
        report: dict[str, Any] = {
            "format": "snukeras-export-report",
            "version": 1,
            "snukeras": __version__,
            "packages": _packages(),
            "source": origin,
            "metrics": metrics,
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
            write_device_list(crossbar, folder / CSV)
        report["files"] = {
            path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            for path in sorted(folder.iterdir())
        }
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / REPORT).write_text(text + "\n", encoding="utf-8")
        lines = [f"{sha256_of(path)}  {path.name}" for path in sorted(folder.iterdir())]
        (folder / CHECKSUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return report


def _target(target):
    if isinstance(target, Target):
        return target
    return None if target == "onnx" else load_target(target)


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
