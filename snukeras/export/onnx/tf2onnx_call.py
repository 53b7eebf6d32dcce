"""Layers without a handler: tf2onnx converts each call on its own, and its graph is merged."""

import dataclasses
import importlib.util
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import keras
import onnx

from snukeras._files import JsonObject
from snukeras._types import Shape, Tensor
from snukeras.export.onnx.graph import OPSET
from snukeras.export.onnx.handlers import CannotLowerError, Context, Value, is_timeless
from snukeras.network.topology import Call, Ref

if TYPE_CHECKING:
    import tensorflow as tf

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
    """Convert one call on its own with tf2onnx and merge the graph that it makes.

    Raises:
        CannotLowerError: tf2onnx cannot convert the layer, or the layer cannot stream.
    """
    layer = call.op
    if context.streaming and all(is_timeless(ref.shape) for ref in call.inputs):
        context = dataclasses.replace(context, streaming=False)
    if getattr(layer, "stateful", False):
        raise CannotLowerError("it is stateful in a form that has no place for its states in ONNX")
    if context.streaming and type(layer) not in _STEPWISE:
        raise CannotLowerError("it may mix steps, so it cannot stream")
    if keras.backend.backend() != "tensorflow":
        raise CannotLowerError(
            "it has no ONNX form of its own for these arguments; tf2onnx may know it, and needs "
            "KERAS_BACKEND=tensorflow"
        )
    if importlib.util.find_spec("tf2onnx") is None:
        raise CannotLowerError(
            "it has no ONNX form of its own for these arguments; tf2onnx may know it: "
            "pip install 'snukeras[tf2onnx]'"
        )
    import tensorflow as tf

    masked = [index for index, value in enumerate(values) if value.mask is not None]
    signature = [tf.TensorSpec(_signature(ref.shape, context), ref.dtype) for ref in call.inputs]
    signature += [tf.TensorSpec((None, None), "bool")] * len(masked)
    names = [value.name for value in values] + [str(values[index].mask) for index in masked]
    function = _Function(call, masked, context.streaming)
    try:
        model = convert_function(function, signature)
        outputs = context.graph.merge(model, call.name, names)
    except Exception as error:  # tf2onnx raises whatever its parts raise
        text = str(error).strip().splitlines()
        reason = (text[0] if text else type(error).__name__)[:200]
        raise CannotLowerError(f"tf2onnx cannot convert it: {reason}") from error
    count = len(outputs) - function.masks
    mask = outputs[count] if function.masks else None
    return [
        Value(output, mask if index == 0 else None) for index, output in enumerate(outputs[:count])
    ]


class _Function:
    """A call as a function of its tensors and their masks, for tf2onnx.

    Attributes:
        masks: How many masks follow the outputs; the call sets it.
    """

    def __init__(self, call: Call, masked: Sequence[int], streaming: bool) -> None:
        self.call, self.masked, self.streaming = call, masked, streaming
        self.masks = 0

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        import tensorflow as tf

        layer, count = self.call.op, len(self.call.inputs)
        masks = dict(zip(self.masked, tensors[count:], strict=True))
        args, kwargs = self._arguments(tensors[:count])
        explicit = isinstance(self.call.kwargs.get("mask"), Ref)
        if masks and not explicit and "mask" in inspect.signature(layer.call).parameters:
            kwargs = {**kwargs, "mask": masks[0]}
        results = keras.tree.flatten(layer(*args, **kwargs))
        if self.streaming:
            results = [tf.squeeze(result, 1) for result in results]
        carried = self._carried(args, masks, count)
        self.masks = len(carried)
        # Identity keeps outputs apart that are one and the same tensor.
        return [tf.identity(tensor) for tensor in (*results, *carried)]

    def _arguments(self, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], JsonObject]:
        """Return the arguments of the call, with tensors in place of their references."""
        order = iter(tensors)
        args, kwargs = keras.tree.map_structure(
            lambda x: next(order) if isinstance(x, Ref) else x, (self.call.args, self.call.kwargs)
        )
        if self.streaming:  # the layer was built with a time axis
            args, kwargs = keras.tree.map_structure(_with_time, (args, kwargs))
        return args, kwargs

    def _carried(
        self, args: Sequence[Tensor], masks: dict[int, Tensor], count: int
    ) -> list[Tensor]:
        """Return the masks that the layer hands on."""
        layer = self.call.op
        carries = isinstance(layer, keras.layers.Layer) and layer.supports_masking
        if not carries or not (masks or getattr(layer, "mask_zero", False)):
            return []
        previous = [masks.get(index) for index in range(count)]
        nested = isinstance(args[0], list | tuple)
        found = layer.compute_mask(args[0], previous if nested else previous[0])
        return [mask for mask in keras.tree.flatten(found) if mask is not None]


def _with_time(x: Tensor) -> Tensor:
    return keras.ops.expand_dims(x, 1) if keras.ops.is_tensor(x) else x


def _signature(shape: Shape, context: Context) -> Shape:
    """Return the shape of one input; in streaming form the time axis is gone."""
    if not shape:
        return ()
    return (None, *shape[2:]) if context.streaming else (None, *shape[1:])


def convert_function(
    function: Callable[..., list[Tensor]], signature: "Sequence[tf.TensorSpec]"
) -> onnx.ModelProto:
    """Convert a function of tensors with tf2onnx.

    Raises:
        ValueError: It needs operators or data that a plain ONNX file cannot hold.
    """
    import tensorflow as tf
    import tf2onnx

    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        model, external = tf2onnx.convert.from_function(
            tf.function(lambda *tensors: function(*tensors)),
            input_signature=signature,
            opset=OPSET,
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
