"""Fold batch normalisation into the weights of the layers beside it."""

import dataclasses

import keras
import numpy as np
from keras import ops

from snukeras.network import topology
from snukeras.network.errors import BadInputError

_PLAIN = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


@dataclasses.dataclass(frozen=True)
class _Fold:
    """A normalisation, and the layer whose weights take it up.

    Attributes:
        normalization: The BatchNormalization.
        layer: The layer before or after it.
        before: Whether the layer comes before.
    """

    normalization: keras.layers.BatchNormalization
    layer: keras.Layer
    before: bool


def fold(model: keras.Model) -> keras.Model:
    """Return a copy of a trained model without batch normalisation, which its weights take up.

        chip = snukeras.pcm.Chip(snukeras.fold(model))

    In inference BatchNormalization multiplies each feature by a number and adds one. The factor
    goes into the kernel of the layer in front of it (Dense and convolutions without activation), or
    else of the layer behind it (those, and all layers of units); the summand goes into its bias.
    For units that is the weight `bias`: it enters at each step and is integrated, which a threshold
    is not. The model computes the same but for rounding. Export it, or put it
    on a chip, in the place of the other: it has fewer operations, and its crossbars hold what the
    units see. A normalisation is left as it is where its neighbours cannot take it up: one that
    others read too, a kernel with a constraint such as PCMConstraint, whose levels it would leave,
    a convolution with padding "same" behind it, whose border it would shift, or one inside a nested
    model.

    Args:
        model: A built Sequential or functional model.

    Returns:
        A new model, not compiled; in the place of each normalisation that was folded stands
        `keras.layers.Activation("linear")` of its name.

    Raises:
        BadInputError: The model was never built, or is a subclass with a `call` of its own.
    """
    if not isinstance(model, keras.Model):
        raise BadInputError(
            f"Argument `model` must be a built Sequential or functional model. Received: {model!r}"
        )
    folds = _chosen(topology.read(model))
    folded = {id(each.normalization): each for each in folds}
    targets = {id(each.layer): each for each in folds}

    def copy(layer: keras.Layer) -> keras.Layer:
        if id(layer) in folded:
            return keras.layers.Activation("linear", name=layer.name, dtype=layer.dtype_policy)
        config = layer.get_config()
        if id(layer) in targets:
            config["use_bias"] = True
        return type(layer).from_config(config)

    made = keras.models.clone_model(model, clone_function=copy)
    for layer in model.layers:
        if id(layer) in folded or not layer.weights:
            continue
        new = made.get_layer(layer.name)
        if id(layer) in targets:
            _assign(new, _weights(targets[id(layer)]))
        else:
            new.set_weights(layer.get_weights())
    return made


def _chosen(plan: topology.Topology) -> list[_Fold]:
    """Find the normalisations that a neighbour can take up; each neighbour takes one."""
    calls = {call.name: call for call in plan.calls}
    times: dict[int, int] = {}
    for call in plan.calls:
        times[id(call.op)] = times.get(id(call.op), 0) + 1
    readers: dict[str, list[topology.Call | None]] = {}
    for call in plan.calls:
        for ref in call.inputs:
            readers.setdefault(ref.key[0], []).append(call)
    for _, ref in plan.outputs:
        readers.setdefault(ref.key[0], []).append(None)
    taken: set[int] = set()
    found = []
    for call in plan.calls:
        if not _is_normalization(call) or times[id(call.op)] > 1:
            continue
        behind = readers.get(call.name, [])
        before = calls.get(call.inputs[0].key[0])
        candidates = []
        if before is not None and len(readers[before.name]) == 1 and _takes_behind(before):
            candidates.append((before, True))
        if len(behind) == 1 and behind[0] is not None and _takes_before(behind[0], call.op):
            candidates.append((behind[0], False))
        for neighbour, is_before in candidates:
            if times[id(neighbour.op)] == 1 and id(neighbour.op) not in taken:
                taken.add(id(neighbour.op))
                found.append(_Fold(call.op, neighbour.op, is_before))
                break
    return found


def _is_normalization(call: topology.Call) -> bool:
    if call.nested or type(call.op) is not keras.layers.BatchNormalization:
        return False
    axis, rank = call.op.axis, len(call.inputs[0].shape)
    return axis in (-1, rank - 1)


def _takes_behind(call: topology.Call) -> bool:
    """Return whether a layer takes up the normalisation of its outputs."""
    return (
        not call.nested
        and type(call.op) in _PLAIN
        and call.op.activation is keras.activations.linear
        and _kernel_is_free(call.op)
    )


def _takes_before(call: topology.Call, normalization: keras.layers.BatchNormalization) -> bool:
    """Return whether a layer takes up the normalisation of its inputs."""
    home = _home(call.op)
    if call.nested or not _kernel_is_free(call.op) or len(call.inputs) != 1:
        return False
    if type(call.op) not in _PLAIN and not hasattr(home, "spiking"):
        return False
    _, shift = _affine(normalization)
    return getattr(home, "padding", "valid") == "valid" or not np.any(shift)


def _home(layer: keras.Layer) -> keras.Layer:
    """Return the owner of the weights: the cell of a layer of units, else the layer."""
    return getattr(layer, "cell", layer)


def _kernel_is_free(layer: keras.Layer) -> bool:
    kernel = getattr(_home(layer), "kernel", None)
    return kernel is not None and getattr(_home(layer), "kernel_constraint", None) is None


def _affine(layer: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Return factor and summand of each feature in inference, float64."""

    def values(variable: keras.Variable | None, default: float) -> np.ndarray:
        if variable is None:
            return np.asarray(default)
        return np.asarray(ops.convert_to_numpy(ops.convert_to_tensor(variable)), "float64")

    mean, variance = values(layer.moving_mean, 0.0), values(layer.moving_variance, 1.0)
    factor = values(layer.gamma, 1.0) / np.sqrt(variance + layer.epsilon)
    return factor, values(layer.beta, 0.0) - mean * factor


def _weights(each: _Fold) -> dict[str, np.ndarray]:
    """Return the weights of a layer, by name, once it has taken up a normalisation."""
    factor, shift = _affine(each.normalization)
    weights = {
        variable.name: np.asarray(ops.convert_to_numpy(variable), "float64")
        for variable in each.layer.weights
    }
    kernel = weights["kernel"]
    bias = weights.get("bias", np.zeros(kernel.shape[-1]))
    if each.before:
        return {**weights, "kernel": kernel * factor, "bias": bias * factor + shift}
    places = tuple(range(kernel.ndim - 2))
    return {
        **weights,
        "kernel": kernel * factor[:, None],
        "bias": bias + shift @ kernel.sum(axis=places),
    }


def _assign(layer: keras.Layer, weights: dict[str, np.ndarray]) -> None:
    for variable in layer.weights:
        variable.assign(weights[variable.name].astype("float32"))
