"""Prove an ONNX file: ONNX Runtime against Keras, and the streaming form against the whole one."""

import json
from typing import Any

import keras
import numpy as np

from snukeras.export.onnx.build import build
from snukeras.export.onnx.layers.snu import unit_layers
from snukeras.export.onnx.layers.sound import FRAMES
from snukeras.export.samples import Samples
from snukeras.export.verify.spikes import contradictions, potentials_of
from snukeras.network import topology

# Soft outputs of the two runtimes agree to this, absolutely and relative to their size.
ABSOLUTE, RELATIVE = 1e-5, 1e-4


def session(onnx: str | bytes):
    """An ONNX Runtime session on the CPU, quiet; `onnx` is a path or the bytes of a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def run_onnx(runtime, feeds: list[np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs of one batch by name; states start at zero."""
    entries = runtime.get_inputs()
    named = {entry.name: feed for entry, feed in zip(entries, feeds, strict=False)}
    for entry in entries[len(feeds) :]:
        named[entry.name] = np.zeros((len(feeds[0]), entry.shape[1]), dtype="float32")
    return dict(
        zip([out.name for out in runtime.get_outputs()], runtime.run(None, named), strict=True)
    )


def compare_onnx(model: keras.Model, onnx: str | bytes, samples: Samples) -> dict[str, Any]:
    """ONNX Runtime against Keras on the samples.

    Returns:
        {"ok", "outputs": {name: {"max_difference"}}, "units": [one per SNU layer and direction]}.
        A unit has the number of outputs compared, "flips" (spikes that differ), "contradictions"
        (decisions beyond rounding) and the largest differences of outputs and of potentials (ONNX
        against float64); `ok` is false where a potential leaves its bound.
    """
    plan = topology.read(model)
    runtime = session(onnx)
    inner, traces = build(model, potentials=True)
    traced = session(inner.SerializeToString())
    names = [name for name, _ in plan.outputs]
    outputs = {name: {"max_difference": 0.0, "ok": True} for name in names}
    units: dict[str, dict[str, Any]] = {}
    for feeds in samples.batches:
        reset(model)
        values = topology.run(plan, feeds)
        given = run_onnx(runtime, feeds)
        inside = run_onnx(traced, feeds)
        clean = np.ones(len(feeds[0]), dtype=bool)
        for entry in unit_layers(plan):
            found = _compare_unit(entry, values, inside, traces[entry.name], clean)
            clean &= ~found.pop("flipped")
            _add_up(units, entry.name, found)
        for name, ref in plan.outputs:
            expected = keras.ops.convert_to_numpy(values[ref.key])
            got = given[name]
            same = expected.shape == got.shape
            worst = _largest(expected, got)
            if same:
                # Where a spike flipped within rounding, what follows may differ.
                kept = clean if len(clean) == len(expected) else slice(None)
                same = bool(
                    np.allclose(got[kept], expected[kept], RELATIVE, ABSOLUTE, equal_nan=True)
                )
            outputs[name]["max_difference"] = max(outputs[name]["max_difference"], worst)
            outputs[name]["ok"] = outputs[name]["ok"] and same
    ok = all(output["ok"] for output in outputs.values())
    ok = ok and all(unit["contradictions"] == 0 for unit in units.values())
    ok = ok and all(unit["ok"] for unit in units.values())
    return {"ok": ok, "outputs": outputs, "units": list(units.values())}


def _add_up(units, name, found):
    if name not in units:
        units[name] = {"name": name, **found}
        return
    known = units[name]
    for key in ("outputs", "flips", "contradictions"):
        known[key] += found[key]
    for key in ("max_difference", "max_potential_difference"):
        known[key] = max(known[key], found[key])
    known["ok"] = known["ok"] and found["ok"]


def _compare_unit(entry, values, inside, trace, clean):
    """One SNU layer (or direction): its own input, outputs and potentials in both runtimes.

    `clean` marks the samples without a flipped spike in the layers before.
    """
    x = keras.ops.convert_to_numpy(values[entry.source.key])
    mask = inside[trace["mask"]] if "mask" in trace else None
    start = [keras.ops.convert_to_numpy(values[ref.key]) for ref in entry.initial]
    expected = _sequence(entry.layer, x, mask, start)
    got = inside[trace["sequence"]]
    if entry.reverse:
        got = got[:, ::-1]
    potentials = inside[trace["potentials"]]
    if entry.reverse:
        potentials = potentials[:, ::-1]
    cell, backwards = entry.layer.cell, entry.layer.go_backwards
    expected = expected.reshape(got.shape)  # the places of maps are units
    on = np.ones(x.shape[:2], bool) if mask is None else mask
    on = (on[:, ::-1] if backwards else on)[:, :, None]
    s, bound = potentials_of(cell, inside[trace["input"]], got, mask, start, backwards)
    off = np.where(on, np.abs(potentials - s), 0.0)
    found = {
        "spiking": cell.spiking,
        "outputs": int(expected.size),
        "flips": 0,
        "contradictions": 0,
        "max_difference": _largest(expected, got),
        "max_potential_difference": float(off.max(initial=0.0)),
        "ok": bool(np.all(off <= bound)),
        "flipped": np.zeros(len(x), dtype=bool),
    }
    if cell.spiking:
        flipped = expected != got
        found["flips"] = int(flipped.sum())
        found["flipped"] = flipped.any(axis=(1, 2))
        found["contradictions"] = contradictions(cell, s, bound, got, mask, backwards)
        s, bound = potentials_of(cell, x, expected, mask, start, backwards)
        found["contradictions"] += contradictions(cell, s, bound, expected, mask, backwards)
    else:
        found["ok"] = found["ok"] and bool(
            np.allclose(got[clean], expected[clean], RELATIVE, ABSOLUTE)
        )
    return found


def _sequence(layer, x, mask, start):
    """Outputs of all steps of a recurrent layer in the order of processing."""
    config = layer.get_config()
    config |= {"return_sequences": True, "return_state": False, "stateful": False}
    config |= {"return_membrane": False} if "return_membrane" in config else {}
    twin = type(layer).from_config(config)
    twin.build(x.shape)
    twin.set_weights(layer.get_weights())
    state = {"initial_state": [keras.ops.convert_to_tensor(v) for v in start]} if start else {}
    mask = None if mask is None else keras.ops.convert_to_tensor(mask)
    return keras.ops.convert_to_numpy(twin(keras.ops.convert_to_tensor(x), mask=mask, **state))


def reset(model: keras.Model) -> None:
    """Lets all stateful layers start anew, those of models inside the model too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            reset(layer)
        elif getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            layer.reset_state()


def _largest(a, b):
    """Largest difference; where shapes differ or one side is NaN, the largest number there is."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    if a.shape != b.shape:
        return float(np.finfo("float64").max)
    off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.nan_to_num(off, nan=np.finfo("float64").max).max(initial=0.0))


def compare_streaming(onnx: str | bytes, step: str | bytes, samples: Samples) -> dict[str, Any]:
    """The streaming form, step by step, against the whole-sequence form; both in ONNX Runtime.

    An output without a time axis is the mean so far, and is compared after the last step.
    """
    whole, runtime = session(onnx), session(step)
    entries, leaves = runtime.get_inputs(), runtime.get_outputs()
    inputs = entries[: len(samples.batches[0])]
    states = entries[len(inputs) :]
    frames = json.loads(runtime.get_modelmeta().custom_metadata_map.get(FRAMES, "{}"))
    worst, ok = 0.0, True
    for feeds in samples.batches:
        expected = run_onnx(whole, feeds)
        state = {
            entry.name: np.zeros((len(feeds[0]), entry.shape[1]), "float32") for entry in states
        }
        steps: dict[str, list[np.ndarray]] = {}
        over_time = {
            entry.name: _steps(feed, frames.get(entry.name))
            for entry, feed in zip(inputs, feeds, strict=True)
        }
        for t in range(over_time[inputs[0].name].shape[1]):
            now = {name: feed[:, t] for name, feed in over_time.items()}
            names = [leave.name for leave in leaves]
            result = dict(zip(names, runtime.run(names, {**now, **state}), strict=True))
            for entry in states:
                state[entry.name] = result.pop(entry.name[: -len("in")] + "out")
            for name, value in result.items():
                steps.setdefault(name, []).append(value)
        for name, values in steps.items():
            timeless = expected[name].ndim == values[-1].ndim
            got = values[-1] if timeless else np.stack(values, axis=1)
            worst = max(worst, _largest(expected[name], got))
            ok = ok and bool(np.allclose(got, expected[name], RELATIVE, ABSOLUTE))
    return {"ok": ok, "max_difference": worst}


def _steps(feed: np.ndarray, frame: dict[str, int] | None) -> np.ndarray:
    """An input with its steps on axis 1; samples are cut into frames (batch, frames, length)."""
    if frame is None:
        return feed
    cut = np.lib.stride_tricks.sliding_window_view(feed, frame["frame_length"], axis=1)
    return np.ascontiguousarray(cut[:, :: frame["frame_step"]])
