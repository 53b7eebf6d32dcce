"""Verify an export: now, when it is written, and later, from its folder."""

import dataclasses
from pathlib import Path

import keras
import numpy as np

from snukeras.export.crossbar.container import parse_json
from snukeras.export.crossbar.load import load_map
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.errors import BadInputError, ExportError, VerificationError
from snukeras.export.folder import (
    CHECKSUMS,
    CSV,
    INT8,
    MAP,
    NIR,
    ONNX,
    REPORT,
    SAMPLES,
    SOURCE,
    STREAMING,
    WEB,
    C,
    Progress,
    check_sums,
    sha256_of,
)
from snukeras.export.loading import load_model
from snukeras.export.network import Network
from snukeras.export.samples import Samples
from snukeras.export.verify.c import compare_c
from snukeras.export.verify.int8 import compare_int8
from snukeras.export.verify.metric import metric_of
from snukeras.export.verify.nir import compare_nir
from snukeras.export.verify.onnx import compare_onnx, compare_streaming
from snukeras.export.verify.results import Verification
from snukeras.export.verify.running import Run, first_outputs, runner
from snukeras.export.verify.web import compare_web
from snukeras.export.verify.weights import compare_device_list, compare_map
from snukeras.network import topology
from snukeras.network.matrices import leaves
from snukeras.network.topology import Topology
from snukeras.network.weights import rebuilt_model


@dataclasses.dataclass(frozen=True)
class Twin:
    """A copy of the network with the weights of a map; its weights may be changed.

    Attributes:
        model: The copy.
        topology: Its topology.
        run: Gives its tensors by key.
    """

    model: keras.Model
    topology: Topology
    run: Run

    @classmethod
    def of(cls, model: keras.Model, crossbar: CrossbarMap) -> "Twin":
        """Rebuild a model from a map."""
        twin = rebuilt_model(model, crossbar.weights())
        for _, layer in leaves(twin):
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # its weights have been set, and it computes with others
        plan = topology.read(twin)
        return cls(twin, plan, runner(plan, twin, [plan.outputs[0][1].key]))

    def outputs(self, samples: Samples) -> list[np.ndarray]:
        """Return the first outputs of the samples, batch by batch."""
        return first_outputs(self.run, self.topology, samples)


def verify_folder(folder: str | Path, progress: Progress = lambda text: None) -> Verification:
    """Repeat the verification of an export.

    Every file's sha256 is checked, the crossbar map's own checksums, schema and consistency, and
    that map, list of devices, NIR graph, ONNX and Keras model belong together; they are compared on
    the samples of the folder again. The checksums lie in the folder themselves, so they guard
    against damage, not against somebody who alters a file and its checksum.

    Returns:
        The verification, as in the report.

    Raises:
        VerificationError: A file is missing or changed, or a comparison does not hold.
        BadInputError: There is no such export.
    """
    folder = Path(folder)
    if not (folder / CHECKSUMS).is_file():
        raise BadInputError(
            f"{folder} is not an export (it has no {CHECKSUMS}).",
            "Give the folder that snukeras-export made.",
        )
    progress("comparing checksums")
    check_sums(folder)

    def damaged(what: str) -> VerificationError:
        return VerificationError(f"{folder / REPORT} {what}.", "Export the model again.")

    report = parse_json((folder / REPORT).read_bytes(), damaged)
    options = report.get("options")
    if not isinstance(options, dict):
        raise damaged("has no options")
    progress("loading the Keras model")
    model = load_model(folder / SOURCE)
    try:
        samples = Samples.load(folder / SAMPLES)
    except BadInputError as error:
        raise VerificationError(error.message, "Export the model again.") from error
    network = Network.read(model, bool(options.get("embedding")))
    if len(samples.batches[0]) != len(network.topology.inputs):
        raise VerificationError(
            f"{folder / SAMPLES} has {len(samples.batches[0])} inputs; the model has "
            f"{len(network.topology.inputs)}.",
            "Export the model again.",
        )
    source = report.get("source")
    name = str(source.get("name")) if isinstance(source, dict) else model.name
    verification, _ = verify(network, folder, samples, progress, name=name)
    if not verification.ok:
        raise VerificationError(
            f"{folder} does not hold: {', '.join(verification.failures())}.",
            "Export the model again.",
        )
    return verification


def verify(
    network: Network,
    folder: Path,
    samples: Samples,
    progress: Progress = lambda text: None,
    crossbar: CrossbarMap | None = None,
    name: str = "",
) -> tuple[Verification, Twin | None]:
    """Compare the files of a folder with the Keras model.

    Args:
        network: The network.
        folder: The folder.
        samples: The input.
        progress: Called with what is being done.
        crossbar: The map of the folder, where it has been read and checked already.
        name: The network's name, which C and page bear.

    Returns:
        The verification, and the network rebuilt from the map, if there is one.

    Raises:
        ExportError: The model or its graph does not run on the samples.
    """
    progress("comparing ONNX Runtime with Keras")
    path = str(folder / ONNX)
    try:
        compared = compare_onnx(network, path, samples)
        outputs = {"keras": compared.keras, "onnx": compared.onnx}
        streaming = int8 = None
        if (folder / INT8).is_file():
            progress("comparing the int8 file")
            int8, outputs["int8"] = compare_int8(folder / ONNX, folder / INT8, samples)
        if (folder / STREAMING).is_file():
            progress("comparing the streaming form")
            streaming = compare_streaming(path, str(folder / STREAMING), samples)
    except ExportError:
        raise
    except Exception as error:  # Keras and ONNX Runtime raise whatever their parts raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ExportError(
            f"The model or its ONNX graph does not run on {samples.kind}: {reason}",
            "Give input that fits with samples= (Python) or --samples FILE.npz.",
        ) from error
    mapped = devices = twin = None
    if (folder / MAP).is_file():
        progress("checking the crossbar map")
        crossbar = crossbar or load_map(folder / MAP)
        mapped = compare_map(network.weights, crossbar, _belongs(network, folder, crossbar))
        if (folder / CSV).is_file():
            progress("checking the list of devices")
            devices = compare_device_list(crossbar, folder / CSV)
        if samples.targets is not None and not mapped.absent:
            twin = Twin.of(network.model, crossbar)
            outputs["map"] = twin.outputs(samples)
    nir = None
    if (folder / NIR).is_file():
        progress("comparing the NIR graph")
        nir = compare_nir(network, folder / NIR, samples)
    c = None
    if (folder / C).is_file():
        progress("compiling and comparing the C")
        c, found = compare_c(network, folder, samples, name)
        outputs |= found
    web = None
    if (folder / WEB).is_file():
        progress("comparing the page")
        web = compare_web(network, folder, samples, name)
    progress("computing the metric of the samples")
    metric, left_out = metric_of(outputs, samples)
    parts = [compared.result, streaming, int8, mapped, devices, nir, c, web]
    verification = Verification(
        ok=all(part.ok for part in parts if part is not None),
        samples=samples.kind,
        batches=len(samples.batches),
        onnx=compared.result,
        streaming=streaming,
        map=mapped,
        device_list=devices,
        nir=nir,
        metric=metric,
        metric_left_out=left_out,
        int8=int8,
        c=c,
        web=web,
    )
    return verification, twin


def _belongs(network: Network, folder: Path, crossbar: CrossbarMap) -> bool:
    """Return whether a map names the ONNX file and the weights beside it."""
    named = crossbar.description
    return (
        named.onnx.file == ONNX
        and named.onnx.sha256 == sha256_of(folder / ONNX)
        and named.source.weights_sha256 == network.digest
    )
