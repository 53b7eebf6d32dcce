"""Convert one call of a layer: by its handler, or with tf2onnx."""

import dataclasses

import keras

from snukeras.export.onnx.handlers import (
    CannotLowerError,
    Context,
    Value,
    base_of,
    check_policy,
    handler_of,
)
from snukeras.export.onnx.tf2onnx_call import through_tf2onnx
from snukeras.network.topology import Call, Ref, attach_mask


def convert(context: Context, call: Call, values: list[Value]) -> list[Value]:
    """Return the outputs of one call; `values` are its input tensors, flattened.

    Raises:
        CannotLowerError: The layer has no ONNX form; the message is the reason.
    """
    layer = call.op
    check_policy(layer)
    if call.kwargs.get("training"):
        raise CannotLowerError("it is called with training=True; export needs inference")
    if layer is attach_mask:
        return [Value(values[0].name, values[1].name)]
    tensors = values
    if not call.nested and not isinstance(layer, _LOOK_AT_TENSORS):
        values = [value if value.carried else Value(value.name) for value in values]
    handler = handler_of(layer)
    outputs = None
    if handler is not None:
        outputs = handler(context, *_with_mask(call, layer, values))
    if outputs is None:
        outputs = _through_tf2onnx(context, call, values, handler is not None)
    if any(value.carried for value in values):
        outputs = [dataclasses.replace(each, carried=each.mask is not None) for each in outputs]
    elif (
        not call.nested
        and _hands_on(layer)
        and len(tensors) == len(outputs) == 1
        and outputs[0].mask is None
    ):
        outputs = [dataclasses.replace(outputs[0], mask=tensors[0].mask)]
    return outputs


# The config of a model names no masks for these: they find them at their tensors when called.
_LOOK_AT_TENSORS = (
    keras.layers.MultiHeadAttention,
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
)


def _hands_on(layer: keras.Layer) -> bool:
    """Return whether a layer lets a mask pass to those that look at tensors."""
    ends = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.GlobalAveragePooling1D)
    return bool(getattr(layer, "supports_masking", False)) and not isinstance(layer, ends)


def _through_tf2onnx(context: Context, call: Call, values: list[Value], known: bool) -> list[Value]:
    """Convert a call with tf2onnx; `known` says whether its layer has a handler.

    Raises:
        CannotLowerError: tf2onnx cannot; the message says what to do.
    """
    try:
        return through_tf2onnx(context, call, values)
    except CannotLowerError as error:
        base = None if known else base_of(call.op)
        if base is None:
            raise
        raise CannotLowerError(
            f"{error}; its class is {base.__name__} with methods of its own, so register its form "
            "with snukeras.export.onnx.handlers.handles (docs/export.md shows how)"
        ) from error


def _with_mask(
    call: Call, layer: keras.Layer, values: list[Value]
) -> tuple[Call, keras.Layer, list[Value]]:
    """Let handlers find the mask with the tensor, whether Keras names it in the call or not."""
    mask = call.kwargs.get("mask")
    if isinstance(mask, Ref):
        index = [ref is mask for ref in call.inputs].index(True)
        values = list(values)
        values[0] = dataclasses.replace(values[0], mask=values.pop(index).name)
        call = dataclasses.replace(call, kwargs={**call.kwargs, "mask": None})
    return call, layer, values
