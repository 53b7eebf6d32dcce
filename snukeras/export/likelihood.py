"""The metric of networks that predict music: nats per step, in Keras, ONNX and from a map."""

import keras
import numpy as np

from snukeras.export import topology
from snukeras.export.crossbar import CrossbarMap
from snukeras.export.map_proof import rebuilt_model
from snukeras.export.onnx_proof import reset, run_onnx, session
from snukeras.export.samples import Samples


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
        reset(model)
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
