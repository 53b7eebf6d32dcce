"""Prove an ONNX file: ONNX Runtime against Keras, and the streaming form against the whole one."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import onnx

from snukeras.export.network import Network
from snukeras.export.onnx.layers.snu import UnitLayer, unit_layers
from snukeras.export.onnx.layers.sound import FRAMES
from snukeras.export.onnx.trace import Traced, add_traces
from snukeras.export.samples import Samples
from snukeras.export.verify.results import (
    DifferenceResult,
    OnnxResult,
    OutputResult,
    UnitResult,
)
from snukeras.export.verify.running import runner
from snukeras.export.verify.spikes import contradictions, potentials_of
from snukeras.network.topology import Key

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Soft outputs of the two runtimes may differ by ABSOLUTE + RELATIVE * |output of Keras|.
ABSOLUTE, RELATIVE = 1e-5, 1e-4
BOUND = f"{ABSOLUTE:.0e} plus {RELATIVE:.0e} of the value".replace("e-0", "e-")


def session(model: str | bytes) -> "InferenceSession":
    """Open an ONNX Runtime session on the CPU, quiet; `model` is a path or the bytes of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(runtime: "InferenceSession", feeds: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return all outputs of one batch by name; states start at zero."""
    entries = runtime.get_inputs()
    named = {entry.name: feed for entry, feed in zip(entries, feeds, strict=False)}
    for entry in entries[len(feeds) :]:
        named[entry.name] = np.zeros((len(feeds[0]), entry.shape[1]), dtype="float32")
    return dict(
        zip([out.name for out in runtime.get_outputs()], runtime.run(None, named), strict=True)
    )


@dataclasses.dataclass(frozen=True)
class Compared:
    """The comparison of an ONNX file with Keras, and the first outputs of both by batch."""

    result: OnnxResult
    keras: list[np.ndarray]
    onnx: list[np.ndarray]


def compare_onnx(network: Network, onnx_file: str | bytes, samples: Samples) -> Compared:
    """Compare ONNX Runtime with Keras on the samples.

    Args:
        network: The network.
        onnx_file: Path or bytes of the file.
        samples: The input.

    Raises:
        VerificationError: The file does not say where its units are.
    """
    plan = network.topology
    layers = unit_layers(plan)
    outputs = {name: OutputResult(0.0, True) for name, _ in plan.outputs}
    units: dict[str, UnitResult] = {}
    first: dict[str, list[np.ndarray]] = {"keras": [], "onnx": []}
    keys = {ref.key for _, ref in plan.outputs} | {entry.source.key for entry in layers}
    keys |= {ref.key for entry in layers for ref in entry.initial}
    keys |= {e.output for e in layers if e.output is not None and e.layer.return_sequences}
    run = runner(plan, network.model, sorted(keys))
    runtime = session(onnx_file)
    inner = _load(onnx_file)
    traces = add_traces(inner)
    traced = session(inner.SerializeToString())
    del inner
    twins = {entry.name: UnitTwin(entry) for entry in layers}
    for feeds in samples.batches:
        values = run(feeds)
        given, inside = run_onnx(runtime, feeds), run_onnx(traced, feeds)
        clean = np.ones(len(feeds[0]), dtype=bool)
        for entry in layers:
            twin = twins[entry.name]
            found, flipped = _compare_unit(twin, values, inside, traces[entry.name], clean)
            clean &= ~flipped
            known = units.get(entry.name)
            units[entry.name] = found if known is None else known.plus(found)
        for name, ref in plan.outputs:
            outputs[name] = _compare_output(outputs[name], values[ref.key], given[name], clean)
        name, ref = plan.outputs[0]
        first["keras"].append(values[ref.key])
        first["onnx"].append(given[name])
    ok = all(output.ok for output in outputs.values())
    ok = ok and all(unit.ok and unit.contradictions == 0 for unit in units.values())
    return Compared(OnnxResult(ok, outputs, tuple(units.values())), **first)


def _load(onnx_file: str | bytes) -> onnx.ModelProto:
    data = onnx_file if isinstance(onnx_file, bytes) else Path(onnx_file).read_bytes()
    return onnx.load_model_from_string(data)


def _compare_output(
    before: OutputResult, expected: np.ndarray, got: np.ndarray, clean: np.ndarray
) -> OutputResult:
    """Compare an output of a batch; where a spike flipped within rounding, it may differ."""
    same = expected.shape == got.shape
    if same:
        kept = clean if len(clean) == len(expected) else slice(None)
        same = bool(np.allclose(got[kept], expected[kept], RELATIVE, ABSOLUTE, equal_nan=True))
    worst = max(before.max_difference, _largest(expected, got))
    return OutputResult(worst, before.ok and same)


class UnitTwin:
    """A layer of units that gives the outputs of all steps, in the order of processing."""

    def __init__(self, entry: UnitLayer) -> None:
        self.entry, self.layer = entry, entry.layer
        self._twin: keras.layers.RNN | None = None

    def outputs(
        self,
        values: dict[Key, np.ndarray],
        mask: np.ndarray | None,
        start: list[np.ndarray],
    ) -> np.ndarray:
        """Return the outputs of all steps for the layer's own input."""
        key = self.entry.output
        if key is not None and self.layer.return_sequences:
            return values[key]
        x = values[self.entry.source.key]
        if self._twin is None:
            config = self.layer.get_config()
            config |= {"return_sequences": True, "return_state": False, "stateful": False}
            config |= {"return_membrane": False} if "return_membrane" in config else {}
            self._twin = type(self.layer).from_config(config)
            self._twin.build(x.shape)
            self._twin.set_weights(self.layer.get_weights())
        tensors = [keras.ops.convert_to_tensor(v) for v in start]
        state = {"initial_state": tensors} if start else {}
        masked = None if mask is None else keras.ops.convert_to_tensor(mask)
        return keras.ops.convert_to_numpy(
            self._twin(keras.ops.convert_to_tensor(x), mask=masked, **state)
        )


def _compare_unit(
    twin: UnitTwin,
    values: dict[Key, np.ndarray],
    inside: dict[str, np.ndarray],
    trace: Traced,
    clean: np.ndarray,
) -> tuple[UnitResult, np.ndarray]:
    """Compare one layer (or direction) on its own input, in both runtimes.

    Args:
        twin: The layer.
        values: Tensors of Keras.
        inside: Tensors of ONNX Runtime.
        trace: Names of the tensors of this layer in ONNX Runtime.
        clean: Which samples had no flipped spike in the layers before.

    Returns:
        The result, and which samples have a flipped spike.
    """
    entry, layer = twin.entry, twin.layer
    x = values[entry.source.key]
    mask = None if trace.mask is None else inside[trace.mask]
    start = [values[ref.key] for ref in entry.initial]
    expected = twin.outputs(values, mask, start)
    got, potentials = inside[trace.y], inside[trace.s]
    cell, backwards = layer.cell, layer.go_backwards
    expected = expected.reshape(got.shape)  # the places of maps are units
    on = np.ones(x.shape[:2], bool) if mask is None else mask
    on = (on[:, ::-1] if backwards else on)[:, :, None]
    s, bound = potentials_of(cell, inside[trace.input], got, mask, start, backwards)
    off = np.where(on, np.abs(potentials - s), 0.0)
    ok, flips, wrong = bool(np.all(off <= bound)), 0, 0
    flipped = np.zeros(len(x), dtype=bool)
    if cell.spiking:
        different = expected != got
        flips, flipped = int(different.sum()), different.any(axis=(1, 2))
        wrong = contradictions(cell, s, bound, got, mask, backwards)
        if flips:  # where both decide alike, Keras decides as ONNX Runtime does
            s, bound = potentials_of(cell, x, expected, mask, start, backwards)
            wrong += contradictions(cell, s, bound, expected, mask, backwards)
    else:
        ok = ok and bool(np.allclose(got[clean], expected[clean], RELATIVE, ABSOLUTE))
    result = UnitResult(
        name=entry.name,
        spiking=bool(cell.spiking),
        outputs=int(expected.size),
        flips=flips,
        contradictions=wrong,
        max_difference=_largest(expected, got),
        max_potential_difference=float(off.max(initial=0.0)),
        ok=ok,
    )
    return result, flipped


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference; the largest number where shapes differ or one is NaN."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    if a.shape != b.shape:
        return float(np.finfo("float64").max)
    off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.nan_to_num(off, nan=np.finfo("float64").max).max(initial=0.0))


def compare_streaming(whole: str | bytes, step: str | bytes, samples: Samples) -> DifferenceResult:
    """Compare the streaming form, step by step, with the whole sequence, both in ONNX Runtime.

    An output without a time axis is the mean so far, and is compared after the last step.
    """
    sequence, runtime = session(whole), session(step)
    worst, ok = 0.0, True
    for feeds in samples.batches:
        expected = run_onnx(sequence, feeds)
        for name, values in _streamed(runtime, feeds).items():
            timeless = expected[name].ndim == values[-1].ndim
            got = values[-1] if timeless else np.stack(values, axis=1)
            worst = max(worst, _largest(expected[name], got))
            ok = ok and bool(np.allclose(got, expected[name], RELATIVE, ABSOLUTE))
    return DifferenceResult(ok, worst)


def _streamed(
    runtime: "InferenceSession", feeds: Sequence[np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """Return the outputs of all steps by name; states start at zero and are fed back."""
    entries = runtime.get_inputs()
    inputs, states = entries[: len(feeds)], entries[len(feeds) :]
    frames = json.loads(runtime.get_modelmeta().custom_metadata_map.get(FRAMES, "{}"))
    names = [leave.name for leave in runtime.get_outputs()]
    state = {entry.name: np.zeros((len(feeds[0]), entry.shape[1]), "float32") for entry in states}
    over_time = {
        entry.name: _steps(feed, frames.get(entry.name))
        for entry, feed in zip(inputs, feeds, strict=True)
    }
    found: dict[str, list[np.ndarray]] = {}
    for t in range(over_time[inputs[0].name].shape[1]):
        now = {name: feed[:, t] for name, feed in over_time.items()}
        result = dict(zip(names, runtime.run(names, {**now, **state}), strict=True))
        for entry in states:
            state[entry.name] = result.pop(entry.name[: -len("in")] + "out")
        for name, value in result.items():
            found.setdefault(name, []).append(value)
    return found


def _steps(feed: np.ndarray, frame: dict[str, int] | None) -> np.ndarray:
    """Return an input with its steps on axis 1; samples are cut into frames."""
    if frame is None:
        return feed
    cut = np.lib.stride_tricks.sliding_window_view(feed, frame["frame_length"], axis=1)
    return cut[:, :: frame["frame_step"]]
