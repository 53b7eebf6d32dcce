"""Prove an export: ONNX Runtime against Keras, the crossbar map against the weights.

Spikes are decisions, and two runtimes that add in another order may decide differently where a
membrane potential lies within rounding of the threshold. So every decision of both runtimes is
checked on its own: from the layer's own input and its own spikes so far, the potential is computed
again in float64, together with a bound on what float32 rounding can have done to it. A decision
that contradicts the float64 potential must lie within that bound of the threshold. If this holds
for both, then wherever they differ first, the potential was within rounding of the threshold.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from snukeras.export import topology
from snukeras.export.crossbar import CrossbarMap
from snukeras.export.onnx_model import build
from snukeras.export.onnx_recurrent import unit_layers
from snukeras.export.weights import assign, collect

# Soft outputs of the two runtimes agree to this, absolutely and relative to their size.
ABSOLUTE, RELATIVE = 1e-5, 1e-4
_ROUNDOFF = 2.0**-24  # of float32
# Every activation that can be exported has a slope below this.
_SLOPE = 2.0
# Runtimes approximate exp, tanh and the like to about this, absolute and relative.
_APPROXIMATION = 2.0**-21
_EXACT = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)


@dataclasses.dataclass(frozen=True)
class Samples:
    """Input for the comparison.

    Attributes:
        kind: what they are, for the report.
        batches: per batch one array per model input.
        targets: per batch the target frames (for the negative log-likelihood), or None.
    """

    kind: str
    batches: list[list[np.ndarray]]
    targets: list[np.ndarray] | None = None

    @classmethod
    def songs(cls, rolls: list[np.ndarray], kind: str, steps: int | None = None) -> "Samples":
        """Each piano roll (T, keys) as a batch of one: frames 0..T-2 predict frames 1..T-1.

        A network of a fixed number of steps gets the rolls in pieces of that length.
        """
        rolls = [np.asarray(roll, dtype="float32") for roll in rolls]
        if steps is not None:
            rolls = [
                roll[start : start + steps + 1]
                for roll in rolls
                for start in range(0, len(roll) - steps, steps)
            ]
        return cls(kind, [[roll[None, :-1]] for roll in rolls], [roll[None, 1:] for roll in rolls])

    @classmethod
    def random(cls, model: keras.Model, seed: int = 0, batch: int = 4, steps: int = 20):
        """Standard normal numbers for floats, valid indices for integers."""
        plan = topology.read(model)
        generator = np.random.default_rng(seed)
        feeds = []
        for _, ref in plan.inputs:
            fixed = ref.shape[0] if ref.shape else None
            shape = [fixed or batch, *(steps if size is None else size for size in ref.shape[1:])]
            if ref.dtype.startswith("float"):
                feeds.append(generator.standard_normal(shape).astype(ref.dtype))
            elif ref.dtype == "bool":
                feeds.append(generator.random(shape) < 0.8)
            else:
                feeds.append(generator.integers(0, _vocabulary(plan, ref), shape).astype(ref.dtype))
        return cls("random input", [feeds])

    def save(self, path) -> None:
        """Writes the samples as .npz, without pickles."""
        arrays: dict[str, Any] = {"kind": np.asarray(self.kind)}
        for number, feeds in enumerate(self.batches):
            arrays |= {f"{number}.input.{index}": feed for index, feed in enumerate(feeds)}
            if self.targets is not None:
                arrays[f"{number}.target"] = self.targets[number]
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path) -> "Samples":
        with np.load(path, allow_pickle=False) as file:
            count = 1 + max(int(key.split(".")[0]) for key in file.files if key != "kind")
            batches, targets = [], []
            for number in range(count):
                inputs = [key for key in file.files if key.startswith(f"{number}.input.")]
                batches.append([file[f"{number}.input.{index}"] for index in range(len(inputs))])
                if f"{number}.target" in file.files:
                    targets.append(file[f"{number}.target"])
            return cls(str(file["kind"]), batches, targets or None)


def _vocabulary(plan, ref):
    sizes = [
        call.op.input_dim
        for call in plan.calls
        if isinstance(call.op, keras.layers.Embedding) and call.inputs[0].key == ref.key
    ]
    return min(sizes, default=2)


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
        _reset(model)
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


def potentials_of(cell, x, y, mask=None, start=(), backwards=False):
    """Membrane potentials in float64 from a layer's own input and outputs, and their uncertainty.

    Args:
        cell: SNUCell or SSNUCell.
        x: (batch, time, features) in the order of time.
        y: (batch, time, units) outputs in the order of processing.
        mask: bool (batch, time) or None.
        start: y and s before the first step, or ().
        backwards: whether steps are processed from the last to the first.

    Returns:
        s and a bound on the float32 rounding error of s, each (batch, time, units), in the order
        of processing. At masked steps s is that of the step before.
    """
    x = np.asarray(x, "float64")
    if backwards:
        x = x[:, ::-1]
        mask = None if mask is None else mask[:, ::-1]
    weight = np.asarray(cell.kernel, "float64")
    bias = np.zeros(cell.units) if cell.bias is None else np.asarray(cell.bias, "float64")
    loop = cell.recurrent_kernel
    loop = None if loop is None else np.asarray(loop, "float64")
    decay = np.asarray(cell.decay_values(), "float64")
    terms = weight.shape[0] + (0 if loop is None else cell.units) + 8
    gamma = terms * _ROUNDOFF
    drive = x @ weight + bias
    size = np.abs(x) @ np.abs(weight) + np.abs(bias)
    shape = (len(x), cell.units)
    before, s = (np.asarray(v, "float64") for v in (start or (np.zeros(shape), np.zeros(shape))))
    error = np.zeros(shape)
    potentials, bounds = np.empty(drive.shape), np.empty(drive.shape)
    for t in range(x.shape[1]):
        gate = before.max(axis=-1, keepdims=True) if cell.lateral_inhibition else before
        carry = decay * (1.0 - gate)
        a, magnitude = drive[:, t] + carry * s, size[:, t] + np.abs(carry * s)
        if loop is not None:
            a, magnitude = a + before @ loop, magnitude + np.abs(before) @ np.abs(loop)
        new = keras.ops.convert_to_numpy(
            cell.state_activation(keras.ops.convert_to_tensor(a, dtype="float64"))
        )
        uncertain = _SLOPE * (gamma * magnitude + np.abs(carry) * error)
        uncertain = uncertain + 8 * _ROUNDOFF * np.abs(new)
        if cell.state_activation not in _EXACT:
            uncertain = uncertain + _APPROXIMATION * np.maximum(1.0, np.abs(new))
        if mask is None:
            s, error, before = new, uncertain, np.asarray(y[:, t], "float64")
        else:
            on = mask[:, t, None]
            s, error = np.where(on, new, s), np.where(on, uncertain, error)
            before = np.where(on, y[:, t], before)
        potentials[:, t], bounds[:, t] = s, error
    return potentials, bounds


def contradictions(cell, s, bound, y, mask=None, backwards=False) -> int:
    """Number of spike decisions that contradict the potential by more than rounding."""
    threshold = np.asarray(cell.threshold_values(), "float64")
    wrong = (np.asarray(y) > 0.5) != (s > threshold)
    wrong &= np.abs(s - threshold) > bound + _ROUNDOFF * np.abs(threshold)
    if mask is not None:
        wrong &= (mask[:, ::-1] if backwards else mask)[:, :, None]
    return int(wrong.sum())


def _sequence(layer, x, mask, start):
    """Outputs of all steps of a recurrent layer in the order of processing."""
    config = layer.get_config()
    config |= {"return_sequences": True, "return_state": False, "stateful": False}
    twin = type(layer).from_config(config)
    twin.build(x.shape)
    twin.set_weights(layer.get_weights())
    state = {"initial_state": [keras.ops.convert_to_tensor(v) for v in start]} if start else {}
    mask = None if mask is None else keras.ops.convert_to_tensor(mask)
    return keras.ops.convert_to_numpy(twin(keras.ops.convert_to_tensor(x), mask=mask, **state))


def _reset(model):
    for layer in model.layers:
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            layer.reset_state()


def _largest(a, b):
    """Largest difference; where shapes differ or one side is NaN, the largest number there is."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    if a.shape != b.shape:
        return float(np.finfo("float64").max)
    off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.nan_to_num(off, nan=np.finfo("float64").max).max(initial=0.0))


def compare_streaming(onnx: str | bytes, step: str | bytes, samples: Samples) -> dict[str, Any]:
    """The streaming form, step by step, against the whole-sequence form; both in ONNX Runtime."""
    whole, runtime = session(onnx), session(step)
    entries, leaves = runtime.get_inputs(), runtime.get_outputs()
    states = entries[len(samples.batches[0]) :]
    worst, ok = 0.0, True
    for feeds in samples.batches:
        expected = run_onnx(whole, feeds)
        state = {
            entry.name: np.zeros((len(feeds[0]), entry.shape[1]), "float32") for entry in states
        }
        steps: dict[str, list[np.ndarray]] = {}
        for t in range(feeds[0].shape[1]):
            now = {entry.name: feed[:, t] for entry, feed in zip(entries, feeds, strict=False)}
            names = [leave.name for leave in leaves]
            result = dict(zip(names, runtime.run(names, {**now, **state}), strict=True))
            for entry in states:
                state[entry.name] = result.pop(entry.name[: -len("in")] + "out")
            for name, value in result.items():
                steps.setdefault(name, []).append(value)
        for name, values in steps.items():
            got = np.stack(values, axis=1)
            worst = max(worst, _largest(expected[name], got))
            ok = ok and bool(np.allclose(got, expected[name], RELATIVE, ABSOLUTE))
    return {"ok": ok, "max_difference": worst}


def compare_map(
    model: keras.Model, crossbar: CrossbarMap, embedding: bool = False
) -> dict[str, Any]:
    """Weights rebuilt from the map against those of the model, matrix by matrix.

    Returns:
        {"ok", "matrices": [...], "parameters_equal"}. A matrix has its largest and its rms error
        in units of weight and the bound that quantisation allows: half a level, or float rounding
        where devices are continuous. Weights on stuck devices are left out and listed in the map.
    """
    rebuilt = crossbar.weights()
    weights = collect(model, embedding)
    stuck: dict[int, set[tuple[int, int]]] = {}
    for fault in crossbar.description["faults"]:
        stuck.setdefault(fault["matrix"], set()).add((fault["row"], fault["column"]))
    matrices = []
    target = crossbar.target
    step = 0.0 if target.levels is None else (target.g_max - target.g_min) / (target.levels - 1)
    by_name = {weight.name: weight for weight in weights}
    for index, entry in enumerate(crossbar.description["matrices"]):
        name, own = entry["name"], by_name.get(entry["name"])
        if own is None or list(own.values.shape) != entry["shape"]:
            matrices.append({"name": name, "ok": False, "problem": "not in the model"})
            continue
        wanted = own.values.reshape(entry["rows"], entry["columns"])
        error = rebuilt[name].reshape(wanted.shape).astype("float64") - wanted
        # Rounding: of the two conductances (up to g_max), of the product, of the quotient.
        scales = crossbar.scales(name)
        bound = (step / 2 + 8 * _ROUNDOFF * target.g_max) / scales
        for row, column in stuck.get(index, ()):
            error[row, column] = 0.0
        matrices.append(
            {
                "name": name,
                "layer": entry["layer"],
                "shape": entry["shape"],
                "weights": int(wanted.size),
                "devices": 2 * target.devices_per_polarity * int(wanted.size),
                "tiles": len(
                    {
                        block["tile"]
                        for block in crossbar.description["blocks"]
                        if block["matrix"] == index
                    }
                ),
                "max_weight": float(np.abs(wanted).max()),
                "rms_weight": float(np.sqrt(np.mean(wanted.astype("float64") ** 2))),
                "max_error": float(np.abs(error).max()),
                "rms_error": float(np.sqrt(np.mean(error**2))),
                "half_level": float(step / 2 / scales.min()),
                "stuck": len(stuck.get(index, ())),
                "ok": bool(np.all(np.abs(error) <= bound)),
            }
        )
    names = {weight.name for weight in weights}
    parameters = crossbar.parameters()
    equal = all(
        name in by_name and np.array_equal(values, by_name[name].values)
        for name, values in parameters.items()
    )
    complete = names == set(parameters) | set(crossbar.matrices)
    return {
        "ok": equal and complete and all(matrix["ok"] for matrix in matrices),
        "matrices": matrices,
        "parameters_equal": equal,
        "complete": complete,
    }


def rebuilt_model(model: keras.Model, weights: dict[str, np.ndarray]) -> keras.Model:
    """A copy of the model with the weights of a map."""
    twin = keras.models.clone_model(model)
    if not twin.built:
        twin.build(model.input_shape)
    twin.set_weights(model.get_weights())
    assign(twin, weights)
    return twin


def frame_nll(probabilities: list[np.ndarray], targets: list[np.ndarray]) -> float:
    """Nats per step: sigmoid cross-entropy summed over keys, mean over all steps of all songs."""
    total, steps = 0.0, 0
    for p, y in zip(probabilities, targets, strict=True):
        p = np.clip(np.asarray(p, "float64"), 1e-7, 1 - 1e-7)
        total -= float(np.sum(y * np.log(p) + (1 - y) * np.log1p(-p)))
        steps += int(np.prod(p.shape[:-1]))
    return total / max(steps, 1)


def predict(model: keras.Model, samples: Samples) -> list[np.ndarray]:
    """Outputs of a model of one input and one output, batch by batch; states start at zero."""
    outputs = []
    for feeds in samples.batches:
        _reset(model)
        outputs.append(keras.ops.convert_to_numpy(model(feeds[0])))
    return outputs


def negative_log_likelihoods(
    model: keras.Model, onnx: str | bytes, crossbar: CrossbarMap | None, samples: Samples
) -> dict[str, float] | None:
    """NLL on the samples of Keras, ONNX, and the network rebuilt from the map.

    None where the samples have no targets or the model does not put out probabilities.
    """
    if samples.targets is None:
        return None

    found = {"keras": predict(model, samples)}
    runtime = session(onnx)
    first = runtime.get_outputs()[0].name
    found["onnx"] = [run_onnx(runtime, feeds)[first] for feeds in samples.batches]
    if crossbar is not None:
        found["map"] = predict(rebuilt_model(model, crossbar.weights()), samples)
    shapes = [target.shape for target in samples.targets]
    for outputs in found.values():
        inside = all(output.min() >= 0 and output.max() <= 1 for output in outputs)
        if [output.shape for output in outputs] != shapes or not inside:
            return None
    return {name: frame_nll(outputs, samples.targets) for name, outputs in found.items()}


def plays_chorales(model: keras.Model) -> bool:
    """True for the JSB task: one input of 88 keys per step, one output of 88 keys per step.

    The batch must be free, or of one song.
    """
    try:
        plan = topology.read(model)
    except ValueError:
        return False
    ends = [*plan.inputs, *plan.outputs]
    return len(ends) == 2 and all(
        len(ref.shape) == 3
        and ref.shape[0] in (None, 1)
        and ref.shape[-1] == 88
        and ref.dtype == "float32"
        for _, ref in ends
    )


__all__ = [
    "Samples",
    "compare_map",
    "compare_onnx",
    "compare_streaming",
    "contradictions",
    "frame_nll",
    "negative_log_likelihoods",
    "plays_chorales",
    "potentials_of",
    "predict",
    "rebuilt_model",
]
