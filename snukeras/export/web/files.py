"""The files of a page: the network as a browser runs it, what it plays, and the page itself.

A network that can go step by step goes so in the browser too. One that needs the whole sequence,
such as one with rate coding, runs it at once, and the page shows the steps one after the other.
"""

import base64
import dataclasses
import json
from collections.abc import Iterator

import numpy as np
import onnx

from snukeras import __version__, _content
from snukeras._files import JsonObject
from snukeras.export.errors import BadInputError, ExportError, UnsupportedLayersError
from snukeras.export.folder import (
    WEB,
    WEB_LICENCE,
    WEB_NETWORK,
    WEB_PAGE,
    WEB_PLAYER,
    WEB_STYLE,
)
from snukeras.export.network import Network
from snukeras.export.onnx.build import build
from snukeras.export.onnx.graph import described
from snukeras.export.onnx.layers.snu import UnitLayer, unit_layers
from snukeras.export.onnx.layers.sound import FRAMES
from snukeras.export.onnx.trace import add_traces
from snukeras.export.records import Record
from snukeras.export.samples import CHORALES, Samples
from snukeras.export.verify.onnx import run_onnx, session
from snukeras.export.web.reference import Reference
from snukeras.network.topology import Ref
from snukeras.zoo import samples as chorales

FORMAT = "snukeras-web"
# So many samples go into the page, and so many bytes of them beyond the first.
MAX_SAMPLES, MAX_BYTES = 8, 2 * 2**20
# So many numbers of an output or a layer, of its first steps, the page compares with Keras's.
_MAX_NUMBERS = 2**18
_STATIC = (WEB_PAGE, WEB_PLAYER, WEB_STYLE, WEB_LICENCE)


@dataclasses.dataclass(frozen=True)
class WebEntry(Record):
    """The page.

    Attributes:
        steps: "one" where the network goes step by step, "all" where it runs a sequence at once.
        reason: Why all steps run at once, or None.
        samples: How many samples the page plays.
        runtime: Version of onnxruntime-web.
    """

    steps: str
    reason: str | None
    samples: int
    runtime: str


@dataclasses.dataclass(frozen=True)
class Page:
    """A page without its runtime.

    Attributes:
        graph: The bytes of its ONNX file.
        network: What the page knows of the network: content of network.json.
    """

    graph: bytes
    network: JsonObject

    def files(self) -> dict[str, bytes]:
        """Return the files by name."""
        folder = _content.folder("export") / "web"
        text = json.dumps(self.network, ensure_ascii=False, allow_nan=False)
        return {
            WEB: self.graph,
            WEB_NETWORK: text.encode() + b"\n",
            **{name: (folder / name).read_bytes() for name in _STATIC},
        }


def make(
    network: Network,
    samples: Samples,
    title: str,
    metadata: dict[str, str] | None = None,
) -> Page:
    """Make the page of a network.

    Args:
        network: The network.
        samples: What it plays.
        title: Its name.
        metadata: Texts for the ONNX file.

    Raises:
        BadInputError: The network has several inputs, or takes batches of one size alone.
        UnsupportedLayersError: Layers have no form in ONNX; all are named.
    """
    plan = network.topology
    if len(plan.inputs) != 1:
        names = ", ".join(name for name, _ in plan.inputs)
        raise BadInputError(
            f"A page feeds a network with one input. Received: {len(plan.inputs)} ({names}).",
            "Join them in the model, or export with --target onnx.",
        )
    batch = plan.inputs[0][1].shape[0] if plan.inputs[0][1].shape else None
    if batch not in (None, 1):
        raise BadInputError(
            f"A page feeds one sample at a time. The model takes batches of {batch}.",
            "Build it anew with a batch of 1, or of any size, and copy the weights.",
        )
    name, reason = network.model.name, None
    try:
        proto = build(plan, name, streaming=True, metadata=metadata)
        layers = _of_a_step(unit_layers(plan), proto)
    except UnsupportedLayersError as error:
        proto = build(plan, name, metadata=metadata)
        layers = _of_all_steps(unit_layers(plan), proto)
        reason = "; ".join(f"{layer}: {why}" for layer, why in error.problems.items())
    graph = proto.SerializeToString(deterministic=True)
    played = list(_played(samples))
    described_network = {
        "format": FORMAT,
        "version": 1,
        "snukeras": __version__,
        "name": title,
        "weights_sha256": network.digest,
        "steps": "one" if reason is None else "all",
        "reason": reason,
        "keys": network.plays_chorales and all(_is_roll(array) for array in played),
        "input": _input(plan.inputs[0][1], proto),
        "outputs": [_output(output, ref) for output, ref in plan.outputs],
        "states": _states(proto, len(plan.outputs)),
        "layers": layers,
        "samples": [
            {"name": label, **packed(array)}
            for label, array in zip(_titles(samples, len(played)), played, strict=True)
        ],
    }
    described_network["check"] = _check(network, graph, described_network, played[0])
    return Page(graph, described_network)


def describe(page: Page, runtime: str) -> WebEntry:
    """Say for the report what a page is."""
    known = page.network
    return WebEntry(known["steps"], known["reason"], len(known["samples"]), runtime)


def packed(array: np.ndarray) -> JsonObject:
    """Return an array as JSON: its shape, type and bytes; small whole numbers take a byte each."""
    kind = "int64" if array.dtype.kind in "iub" else "float32"
    whole = kind == "int64" or bool(np.all(array == np.rint(array)))
    if whole and array.size and array.min() >= -(2**31) and array.max() < 2**31:
        kind = "uint8" if array.min() >= 0 and array.max() < 256 else "int32"
    data = np.ascontiguousarray(array).astype(np.dtype(kind).newbyteorder("<"))
    return {
        "shape": list(array.shape),
        "type": kind,
        "data": base64.b64encode(data.tobytes()).decode("ascii"),
    }


def unpacked(entry: JsonObject) -> np.ndarray:
    """Return the array of what `packed` returned, as float32 or whole numbers."""
    kind = np.dtype(entry["type"]).newbyteorder("<")
    array = np.frombuffer(base64.b64decode(entry["data"]), kind).reshape(entry["shape"])
    return array.astype(entry["type"])


def masks_of(known: JsonObject, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the masks of layers, by layer, of what the ONNX file of a page put out."""
    return {
        layer["name"]: found[layer["mask"]] for layer in known["layers"] if layer["mask"] in found
    }


def _of_a_step(units: list[UnitLayer], proto: onnx.ModelProto) -> list[JsonObject]:
    """Describe the layers of units of the streaming form, whose states show their outputs."""
    ends = {value.name for value in proto.graph.output}
    shown = [(unit, f"{unit.name}/y_out") for unit in units]
    return [_layer(unit, tensor, None) for unit, tensor in shown if tensor in ends]


def _of_all_steps(units: list[UnitLayer], proto: onnx.ModelProto) -> list[JsonObject]:
    """Let the whole form show its layers of units, and describe them."""
    traces = add_traces(proto)
    shown = {trace.y for trace in traces.values()} | {t.mask for t in traces.values() if t.mask}
    hidden = {value for trace in traces.values() for value in (trace.input, trace.s)}
    kept = [value for value in proto.graph.output if value.name not in hidden - shown]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    return [
        _layer(unit, traces[unit.name].y, traces[unit.name].mask)
        for unit in units
        if unit.name in traces
    ]


def _layer(unit: UnitLayer, tensor: str, mask: str | None) -> JsonObject:
    """Describe a layer of units: the output of the ONNX file that shows it, and its mask's."""
    cell = unit.layer.cell
    return {
        "name": unit.name,
        "class": type(unit.layer).__name__,
        "spiking": bool(cell.spiking),
        "tensor": tensor,
        "mask": mask,
    }


def _states(proto: onnx.ModelProto, outputs: int) -> list[JsonObject]:
    """Pair the states that enter with those that leave, which come behind the outputs."""
    entering = list(proto.graph.input)[1:]
    leaving = list(proto.graph.output)[outputs : outputs + len(entering)]
    return [
        {
            "in": before.name,
            "out": after.name,
            "units": before.type.tensor_type.shape.dim[1].dim_value,
        }
        for before, after in zip(entering, leaving, strict=True)
    ]


def _input(ref: Ref, proto: onnx.ModelProto) -> JsonObject:
    """Describe the input: how the page cuts a sample into steps, and what it feeds."""
    value = proto.graph.input[0]
    rank = len(value.type.tensor_type.shape.dim)
    frame = json.loads(described(proto).get(FRAMES, "{}")).get(value.name)
    return {
        "name": value.name,
        "dtype": ref.dtype,
        # A sample has no axis of the batch.
        "over_time": frame is not None or rank < len(ref.shape),
        "frame": frame,
    }


def _output(name: str, ref: Ref) -> JsonObject:
    return {
        "name": name,
        "over_time": len(ref.shape) > 2 or (len(ref.shape) == 2 and ref.shape[1] is None),
    }


def _played(samples: Samples) -> Iterator[np.ndarray]:
    """Iterate over the samples that the page plays, each without an axis of the batch."""
    count = size = 0
    for feeds in samples.batches:
        for sample in feeds[0]:
            count, size = count + 1, size + sample.nbytes
            if count > 1 and (count > MAX_SAMPLES or size > MAX_BYTES):
                return
            yield sample


def _titles(samples: Samples, count: int) -> list[str]:
    """Return what the samples are called."""
    if samples.kind == CHORALES:
        names = chorales.titles()
        if len(names) == len(samples.batches):
            return names[:count]
    titles = [f"sample {number}" for number in range(1, count + 1)]
    classes = [t for t in samples.targets or () if t.ndim == 1 and t.dtype.kind in "iu"]
    if classes:
        known = np.concatenate(classes)
        titles = [f"{title}, class {c}" for title, c in zip(titles, known, strict=False)]
    return titles


def _is_roll(array: np.ndarray) -> bool:
    return array.ndim == 2 and bool(np.all((array == 0) | (array == 1)))


def _check(network: Network, graph: bytes, known: JsonObject, sample: np.ndarray) -> JsonObject:
    """Return what Keras makes of the first sample, for the page to compare itself with."""
    feeds = [sample[None]]
    masks = {}
    try:
        if any(layer["mask"] for layer in known["layers"]):
            masks = masks_of(known, run_onnx(session(graph), feeds))
        seen = Reference(network).run(feeds, masks)
    except Exception as error:  # Keras and ONNX Runtime raise whatever their parts raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ExportError(
            f"The model does not run on a sample of the shape {sample.shape}: {reason}",
            "Give input that fits with samples= (Python) or --samples FILE.npz.",
        ) from error
    shown = {layer["name"] for layer in known["layers"]} - set(masks)
    over_time = {output["name"]: output["over_time"] for output in known["outputs"]}
    return {
        "outputs": {
            name: packed(_first_steps(values[0]) if over_time[name] else values[0])
            for name, values in seen.outputs.items()
        },
        "layers": {
            name: packed(_first_steps(values[0]))
            for name, values in seen.layers.items()
            if name in shown
        },
    }


def _first_steps(values: np.ndarray) -> np.ndarray:
    return values[: max(1, _MAX_NUMBERS // max(1, values[0].size))]
