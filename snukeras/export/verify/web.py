"""Prove the page of an export: its ONNX file, stepped as a browser steps it, against Keras."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from snukeras._files import JsonObject
from snukeras.export.folder import WEB, WEB_NETWORK
from snukeras.export.network import Network
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import ABSOLUTE, RELATIVE, run_onnx, session
from snukeras.export.verify.results import WebResult
from snukeras.export.verify.spikes import contradictions, potentials_of
from snukeras.export.web.files import make, masks_of, unpacked
from snukeras.export.web.reference import Reference, Seen

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def compare_web(network: Network, folder: Path, samples: Samples, title: str) -> WebResult:
    """Compare what a page plays with Keras.

    Its network.json has to be what this network and these samples give, and its ONNX file, run as
    the page runs it, has to give what Keras gives, for each sample of the page.

    Args:
        network: The network.
        folder: The folder of the export.
        samples: Its samples.
        title: The network's name.
    """
    try:
        known = json.loads((folder / WEB_NETWORK).read_bytes())
        wanted = make(network, samples, title).network
        if problem := _differs(known, wanted):
            return WebResult(False, 0, 0, 0.0, 0, 0, problem)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return WebResult(False, 0, 0, 0.0, 0, 0, f"{WEB_NETWORK} cannot be read: {reason}")
    runtime = session((folder / WEB).read_bytes())
    reference, compared = Reference(network), _Comparison()
    for entry in wanted["samples"]:
        feed = unpacked(entry).astype(wanted["input"]["dtype"])[None]
        found = played(runtime, wanted, feed)
        if problem := compared.add(reference, reference.run([feed], found.masks), found):
            return compared.result(problem)
    return compared.result("")


class Played(NamedTuple):
    """What a page computes of a sample.

    Attributes:
        outputs: By name, in the shape of Keras's.
        layers: Outputs of layers of units by name, (batch, time, units).
        masks: Of layers of units, where they have one.
        steps: How many steps the page shows.
    """

    outputs: dict[str, np.ndarray]
    layers: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    steps: int


def played(runtime: "InferenceSession", known: JsonObject, feed: np.ndarray) -> Played:
    """Run a sample as the page does.

    Args:
        runtime: A session of the page's ONNX file.
        known: The content of its network.json.
        feed: The sample, with an axis of the batch in front.
    """
    if known["steps"] == "all":
        found = run_onnx(runtime, [feed])
        outputs = {output["name"]: found[output["name"]] for output in known["outputs"]}
        layers = {layer["name"]: found[layer["tensor"]] for layer in known["layers"]}
        over_time = [outputs[output["name"]] for output in known["outputs"] if output["over_time"]]
        steps = max((value.shape[1] for value in (*layers.values(), *over_time)), default=1)
        return Played(outputs, layers, masks_of(known, found), steps)
    names = [end.name for end in runtime.get_outputs()]
    held = {s["in"]: np.zeros((1, s["units"]), "float32") for s in known["states"]}
    done = []
    for x in _steps(known["input"], feed):
        values = runtime.run(names, {known["input"]["name"]: x, **held})
        done.append(dict(zip(names, values, strict=True)))
        held = {state["in"]: done[-1][state["out"]] for state in known["states"]}

    def stacked(name: str) -> np.ndarray:
        return np.stack([step[name] for step in done], axis=1)

    outputs = {
        output["name"]: stacked(output["name"])
        if output["over_time"] and known["input"]["over_time"]
        else done[-1][output["name"]]
        for output in known["outputs"]
    }
    layers = {layer["name"]: stacked(layer["tensor"]) for layer in known["layers"]}
    return Played(outputs, layers, {}, len(done))


def _steps(given: JsonObject, feed: np.ndarray) -> Sequence[np.ndarray]:
    """Cut a sample into what the page feeds at each step."""
    if not given["over_time"]:
        return [feed]
    if given["frame"] is None:
        return [feed[:, t] for t in range(feed.shape[1])]
    length, hop = given["frame"]["frame_length"], given["frame"]["frame_step"]
    return [feed[:, at : at + length] for at in range(0, feed.shape[1] - length + 1, hop)]


def _differs(known: JsonObject, wanted: JsonObject) -> str:
    """Say which entry of network.json is not that of the network, or ""."""
    for key in wanted.keys() | known.keys():
        if key in ("snukeras", "check"):
            continue
        if json.dumps(known.get(key)) != json.dumps(wanted.get(key)):
            return f"{WEB_NETWORK} has another {key} than the model and its samples give"
    for part in ("outputs", "layers"):
        given, expected = known["check"][part], wanted["check"][part]
        if given.keys() != expected.keys() or not all(
            np.allclose(unpacked(given[name]), unpacked(expected[name]), RELATIVE, ABSOLUTE)
            for name in expected
        ):
            return f"{WEB_NETWORK} has other {part} than Keras gives"
    return ""


class _Comparison:
    """What was found of the samples so far."""

    def __init__(self) -> None:
        self.samples = self.steps = self.outputs = self.flips = 0
        self.worst = 0.0

    def result(self, problem: str) -> WebResult:
        """Return what was found so far."""
        return WebResult(
            not problem, self.samples, self.steps, self.worst, self.outputs, self.flips, problem
        )

    def add(self, reference: Reference, seen: Seen, found: Played) -> str:
        """Compare a sample; return what differs, or "".

        Behind a spike that rounding decided otherwise nothing is compared.
        """
        self.samples += 1
        self.steps += found.steps
        for name, got in found.layers.items():
            expected, mask = seen.layers[name], found.masks.get(name)
            if got.shape != expected.shape:
                return f"{name} has the shape {got.shape}, in Keras {expected.shape}"
            unit = reference.unit(name).layer
            on = np.ones(got.shape[:2], bool) if mask is None else mask
            on = (on[:, ::-1] if unit.go_backwards else on)[:, :, None]
            if not unit.cell.spiking:
                if not np.allclose(got * on, expected * on, RELATIVE, ABSOLUTE):
                    return f"outputs of {name} differ from Keras"
                continue
            different = (got != expected) & on
            self.outputs, self.flips = self.outputs + got.size, self.flips + int(different.sum())
            if different.any():
                x, start = seen.sources[name], seen.starts[name]
                s, bound = potentials_of(unit.cell, x, got, mask, start, unit.go_backwards)
                if contradictions(unit.cell, s, bound, got, mask, unit.go_backwards):
                    return f"spikes of {name} differ from Keras beyond rounding"
                return ""
        for name, got in found.outputs.items():
            expected = seen.outputs[name]
            if got.shape != expected.shape:
                return f"{name} has the shape {got.shape}, in Keras {expected.shape}"
            off = np.abs(got.astype("float64") - expected)
            self.worst = max(self.worst, float(np.nan_to_num(off, nan=np.inf).max(initial=0.0)))
            if not np.allclose(got, expected, RELATIVE, ABSOLUTE, equal_nan=True):
                return f"the output {name} differs from Keras by {self.worst:.3g}"
        return ""
