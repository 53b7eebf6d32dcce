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
    if not call.nested:
        values = [Value(value.name) for value in values]
    handler = handler_of(layer)
    if handler is not None:
        outputs = handler(context, *_with_mask(call, layer, values))
        if outputs is not None:
            return outputs
    try:
        return through_tf2onnx(context, call, values)
    except CannotLowerError as error:
        base = None if handler is not None else base_of(layer)
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
