"""The metric of a network on samples with targets: in Keras, in ONNX, and from a map."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import reset, run_onnx, session
from snukeras.network import topology
from snukeras.network.weights import rebuilt_model

_SMALLEST = 1e-7


def frame_nll(probabilities: list[np.ndarray], targets: list[np.ndarray]) -> float:
    """Nats per step: sigmoid cross-entropy summed over keys, mean over all steps of all songs."""
    total, steps = 0.0, 0
    for p, y in zip(probabilities, targets, strict=True):
        p = np.clip(np.asarray(p, "float64"), _SMALLEST, 1 - _SMALLEST)
        total -= float(np.sum(y * np.log(p) + (1 - y) * np.log1p(-p)))
        steps += int(np.prod(p.shape[:-1]))
    return total / max(steps, 1)


def cross_entropy(probabilities: list[np.ndarray], targets: list[np.ndarray]) -> float:
    """Nats per decision: minus the logarithm of the probability of the right class, mean."""
    right = [
        np.take_along_axis(np.asarray(p, "float64"), np.asarray(y)[..., None].astype("int64"), -1)
        for p, y in zip(probabilities, targets, strict=True)
    ]
    return float(
        -np.mean(np.concatenate([np.log(np.maximum(r, _SMALLEST)).ravel() for r in right]))
    )


def accuracy(outputs: list[np.ndarray], targets: list[np.ndarray]) -> float:
    """Percentage of decisions whose largest output is the right class."""
    hits = [(p.argmax(-1) == np.asarray(y)).ravel() for p, y in zip(outputs, targets, strict=True)]
    return float(100.0 * np.mean(np.concatenate(hits)))


@dataclasses.dataclass(frozen=True)
class Metric:
    """A figure: how it is called, what it is measured in, which way is better.

    Attributes:
        classes: whether targets are numbers of classes, one for each output vector; else they
            have the shape of the outputs.
        bounded: whether outputs have to lie in [0, 1].
    """

    title: str
    unit: str
    lower_is_better: bool
    function: Callable[[list[np.ndarray], list[np.ndarray]], float]
    classes: bool
    bounded: bool = True


METRICS = {
    "frame_nll": Metric("negative log-likelihood", "nats per step", True, frame_nll, False),
    "cross_entropy": Metric("cross-entropy", "nats", True, cross_entropy, True),
    "accuracy": Metric("accuracy", "%", False, accuracy, True, bounded=False),
}


def measure(outputs: list[np.ndarray], samples: Samples) -> float:
    """The samples' metric of outputs, batch by batch."""
    assert samples.targets is not None
    return METRICS[samples.metric].function(outputs, samples.targets)


def predict(model: keras.Model, samples: Samples) -> list[np.ndarray]:
    """First outputs of a model, batch by batch; states start at zero."""
    outputs = []
    for feeds in samples.batches:
        reset(model)
        result = model(feeds if len(feeds) > 1 else feeds[0])
        outputs.append(keras.ops.convert_to_numpy(keras.tree.flatten(result)[0]))
    return outputs


def metric_of(
    model: keras.Model, onnx: str | bytes, crossbar: CrossbarMap | None, samples: Samples
) -> dict[str, Any] | None:
    """The samples' metric of Keras, of ONNX, and of the network rebuilt from the map.

    Returns:
        {"name", "title", "unit", "lower_is_better", "values": {"keras", "onnx", "map"}}, or None
        where the samples have no targets, or the outputs of the model are not what these are for.
    """
    if samples.targets is None:
        return None

    metric = METRICS[samples.metric]
    found = {"keras": predict(model, samples)}
    runtime = session(onnx)
    first = runtime.get_outputs()[0].name
    found["onnx"] = [run_onnx(runtime, feeds)[first] for feeds in samples.batches]
    if crossbar is not None:
        found["map"] = predict(rebuilt_model(model, crossbar.weights()), samples)
    for outputs in found.values():
        for output, target in zip(outputs, samples.targets, strict=True):
            if (output.shape[:-1] if metric.classes else output.shape) != target.shape:
                return None
            if metric.bounded and not (output.min() >= 0 and output.max() <= 1):
                return None
    return {
        "name": samples.metric,
        "title": metric.title,
        "unit": metric.unit,
        "lower_is_better": metric.lower_is_better,
        "values": {name: measure(outputs, samples) for name, outputs in found.items()},
    }


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
