"""Layers without a handler: tf2onnx converts each call on its own, and its graph is merged."""

import dataclasses
import inspect
import logging

import keras
import onnx

from snukeras.export.onnx.graph import OPSET
from snukeras.export.onnx.handlers import CannotLowerError, Context, Value
from snukeras.network.topology import Call, Ref

# Layers that treat each step alone along the last axis, so that they stream as they are.
_STEPWISE = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.PReLU,
    keras.layers.Softmax,
    keras.layers.Rescaling,
    keras.layers.Embedding,
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Concatenate,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.Dense,
)


def through_tf2onnx(context: Context, call: Call, values: list[Value]) -> list[Value]:
    """Converts one call on its own with tf2onnx and merges what comes out.

    Raises:
        CannotLowerError: tf2onnx cannot convert the layer, or the layer cannot stream.
    """
    layer = call.op
    if context.streaming and all(_is_timeless(ref.shape) for ref in call.inputs):
        context = dataclasses.replace(context, streaming=False)
    if getattr(layer, "stateful", False):
        raise CannotLowerError("it is stateful in a form that has no place for its states in ONNX")
    if context.streaming and type(layer) not in _STEPWISE:
        raise CannotLowerError("it may mix steps, so it cannot stream")
    import tensorflow as tf

    refs = call.inputs
    names = [value.name for value in values]
    signature = [tf.TensorSpec(_signature(ref.shape, context), ref.dtype) for ref in refs]
    masked = [index for index, value in enumerate(values) if value.mask is not None]
    signature += [tf.TensorSpec((None, None), "bool")] * len(masked)
    names += [str(values[index].mask) for index in masked]
    mask_outputs: list[bool] = []

    def function(*tensors):
        masks = dict(zip(masked, tensors[len(refs) :], strict=True))
        order = iter(range(len(refs)))
        given = keras.tree.map_structure(
            lambda x: tensors[next(order)] if isinstance(x, Ref) else x, (call.args, call.kwargs)
        )
        args, kwargs = given
        explicit = isinstance(call.kwargs.get("mask"), Ref)
        if masks and not explicit and "mask" in inspect.signature(layer.call).parameters:
            kwargs = {**kwargs, "mask": masks[0]}
        if context.streaming:  # the layer was built with a time axis
            args, kwargs = keras.tree.map_structure(_with_time, (args, kwargs))
        results = keras.tree.flatten(layer(*args, **kwargs))
        if context.streaming:
            results = [tf.squeeze(result, 1) for result in results]
        out_masks = []
        carries = isinstance(layer, keras.layers.Layer) and layer.supports_masking
        if carries and (masks or getattr(layer, "mask_zero", False)):
            nested = isinstance(args[0], list | tuple)
            previous = [masks.get(index) for index in range(len(refs))]
            out_masks = keras.tree.flatten(
                layer.compute_mask(args[0], previous if nested else previous[0])
            )
        out_masks = [mask for mask in out_masks if mask is not None]
        mask_outputs[:] = [True] * len(out_masks)
        # Identity keeps outputs apart that are one and the same tensor.
        return [tf.identity(tensor) for tensor in (*results, *out_masks)]

    try:
        model = convert_function(function, signature)
        outputs = context.graph.merge(model, call.name, names)
    except Exception as error:  # tf2onnx raises whatever its parts raise
        text = str(error).strip().splitlines()
        reason = (text[0] if text else type(error).__name__)[:200]
        raise CannotLowerError(f"tf2onnx cannot convert it: {reason}") from error
    count = len(outputs) - len(mask_outputs)
    mask = outputs[count] if mask_outputs else None
    return [
        Value(output, mask if index == 0 else None) for index, output in enumerate(outputs[:count])
    ]


def _is_timeless(shape):
    """Whether a tensor has no time axis in the whole form, as what comes of a mean over time."""
    return len(shape) == 2 and shape[1] is not None


def _with_time(x):
    return keras.ops.expand_dims(x, 1) if keras.ops.is_tensor(x) else x


def _signature(shape, context):
    """Shape of one input; in streaming form the time axis is gone."""
    if not shape:
        return ()
    return (None, *shape[2:]) if context.streaming else (None, *shape[1:])


def convert_function(function, signature):
    import tensorflow as tf
    import tf2onnx

    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        model, external = tf2onnx.convert.from_function(
            tf.function(function), input_signature=signature, opset=OPSET
        )
    finally:
        logger.setLevel(level)
    if external:
        raise ValueError("it needs external data")
    onnx.checker.check_model(model)
    custom = {node.domain for node in model.graph.node} - {"", "ai.onnx", "ai.onnx.ml"}
    if custom:
        raise ValueError(f"it needs operators of {', '.join(sorted(custom))}")
    return model
