"""The metric of a network on samples with targets: in Keras, in ONNX, in C, and from a map."""

from collections.abc import Mapping

import numpy as np

from snukeras.export.samples import Samples
from snukeras.export.verify.figures import METRICS, Arrays
from snukeras.export.verify.results import MetricResult


def measure(outputs: Arrays, samples: Samples) -> float:
    """Return the samples' metric of outputs, batch by batch."""
    assert samples.targets is not None
    return METRICS[samples.metric].function(outputs, samples.targets)


def metric_of(
    outputs: Mapping[str, list[np.ndarray]], samples: Samples
) -> tuple[MetricResult | None, str | None]:
    """Measure the first outputs of Keras, of ONNX, of the C, and of the network from the map.

    Args:
        outputs: By "keras", "onnx", "int8", "c", "c_int8" and "map" the outputs by batch.
        samples: The samples, with targets or without.

    Returns:
        The metric and None, or None and the reason why there is none.
    """
    if samples.targets is None:
        return None, "there are no samples with a metric"
    metric = METRICS[samples.metric]
    for found in outputs.values():
        for output, target in zip(found, samples.targets, strict=True):
            wanted = output.shape[:-1] if metric.classes else output.shape
            if wanted != target.shape:
                return None, (
                    f"the targets have the shape {target.shape}, but {samples.metric} needs "
                    f"{wanted} for these outputs"
                )
            if metric.bounded and not (output.min() >= 0 and output.max() <= 1):
                return None, f"{samples.metric} needs outputs between 0 and 1 (probabilities)"
    values = {name: measure(found, samples) for name, found in outputs.items()}
    return (
        MetricResult(samples.metric, metric.title, metric.unit, metric.lower_is_better, values),
        None,
    )
