"""What becomes of each Keras layer in ONNX: our own forms, and tf2onnx for the rest."""

import dataclasses
import inspect
import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx

from snukeras.export import onnx_units
from snukeras.export.graph import GraphBuilder, element_type
from snukeras.export.onnx_activations import emitter
from snukeras.export.onnx_units import CannotLowerError, Unit
from snukeras.export.topology import Call, Ref, Topology, attach_mask
from snukeras.layers import SNU, SSNU, SNUCell, SSNUCell


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor in the ONNX graph, with the mask that Keras would carry along, if any."""

    name: str
    mask: str | None = None


@dataclasses.dataclass
class Context:
    """What handlers need: the graph, and what has been asked of it.

    Attributes:
        graph: the graph being built.
        streaming: one step instead of a sequence; tensors have no time axis then.
        potentials: also put out the membrane potentials of all steps.
        states: (units, input name, output name) of states that enter and leave the graph.
        traces: layer name to the names of its input, outputs and potentials (verification).
    """

    graph: GraphBuilder
    streaming: bool = False
    potentials: bool = False
    states: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    traces: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)


Handler = Callable[[Context, Call, Any, list[Value]], list[Value]]
_HANDLERS: dict[type, Handler] = {}


def handles(*classes: type) -> Callable[[Handler], Handler]:
    """Registers a handler for exactly these layer classes (not for subclasses)."""

    def register(handler: Handler) -> Handler:
        for cls in classes:
            _HANDLERS[cls] = handler
        return handler

    return register


def convert(context: Context, call: Call, values: list[Value]) -> list[Value]:
    """The outputs of one call; `values` are its input tensors, flattened.

    Raises:
        CannotLowerError: the layer has no ONNX form; the message is the reason.
    """
    layer = call.op
    _check_policy(layer)
    if call.kwargs.get("training"):
        raise CannotLowerError("it is called with training=True; export needs inference")
    if layer is attach_mask:
        return [Value(values[0].name, values[1].name)]
    if not call.nested:
        values = [Value(value.name) for value in values]
    handler = _HANDLERS.get(type(layer))
    if handler is None:
        return _through_tf2onnx(context, call, values)
    mask = call.kwargs.get("mask")
    if isinstance(mask, Ref):
        # Our handlers find the mask with the tensor, whether Keras names it in the call or not.
        index = [ref is mask for ref in call.inputs].index(True)
        values = list(values)
        values[0] = dataclasses.replace(values[0], mask=values.pop(index).name)
        call = dataclasses.replace(call, kwargs={**call.kwargs, "mask": None})
    return handler(context, call, layer, values)


def own_layers() -> list[str]:
    """Names of the layers that have a form of our own."""
    return sorted({cls.__name__ for cls in _HANDLERS})


def _check_policy(layer):
    policy = getattr(layer, "dtype_policy", None)
    if policy is None or policy.name == "float32":
        return
    if policy.compute_dtype != "float32" or any(v.dtype != "float32" for v in layer.weights):
        raise CannotLowerError(
            f"its dtype policy is {policy.name!r}; export needs float32: set "
            "keras.config.set_dtype_policy('float32'), build the model again, copy the weights"
        )


def _simple(call):
    """True if the call takes one tensor and nothing else that matters."""
    rest = [v for k, v in call.kwargs.items() if k not in ("mask", "training") and v is not None]
    return (
        len(call.inputs) == 1
        and isinstance(call.args[0], Ref)
        and not rest
        and len([a for a in call.args if a is not None]) == 1
    )


def _float(context, call, index, value):
    """The tensor as float32, cast where the model feeds integers."""
    if call.inputs[index].dtype == "float32":
        return value.name
    return context.graph.node("Cast", [value.name], f"{call.name}/cast", to=element_type("float32"))


def _activate(context, call, activation, x):
    emit = emitter(activation)
    return None if emit is None else emit(context.graph, x, f"{call.name}/activation")


@handles(keras.layers.Dense)
def _dense(context, call, layer, values):
    graph, name = context.graph, call.name
    if emitter(layer.activation) is None or getattr(layer, "quantization_mode", None):
        return _through_tf2onnx(context, call, values)
    x = _float(context, call, 0, values[0])
    kernel = graph.constant(np.asarray(layer.kernel), f"{name}/kernel")
    x = graph.node("MatMul", [x, kernel], f"{name}/product")
    if layer.bias is not None:
        bias = graph.constant(np.asarray(layer.bias), f"{name}/bias")
        x = graph.node("Add", [x, bias], f"{name}/biased")
    return [Value(_activate(context, call, layer.activation, x), values[0].mask)]


@handles(
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)
def _identity(context, call, layer, values):
    return [values[0]]


@handles(keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
def _activation(context, call, layer, values):
    if emitter(layer) is None:
        return _through_tf2onnx(context, call, values)
    x = _float(context, call, 0, values[0])
    return [Value(_activate(context, call, layer, x), values[0].mask)]


@handles(keras.layers.Masking)
def _masking(context, call, layer, values):
    graph, name = context.graph, call.name
    x = _float(context, call, 0, values[0])
    skip = graph.constant(layer.mask_value, f"{name}/mask_value")
    same = graph.node("Equal", [x, skip], f"{name}/same")
    differs = graph.node("Cast", [same], f"{name}/same_number", to=element_type("float32"))
    # All features equal to the mask value <=> the smallest of the equalities is 1.
    lowest = graph.node("ReduceMin", [differs], f"{name}/all_same", axes=[-1], keepdims=1)
    zero, one = graph.constant(0.0, "zero"), graph.constant(1.0, "one")
    column = graph.node("Less", [lowest, one], f"{name}/mask_column")
    x = graph.node("Where", [column, x, zero], f"{name}/masked")
    last_axis = graph.constant([-1], "last_axis", "int64")
    mask = graph.node("Squeeze", [column, last_axis], f"{name}/mask")
    return [Value(x, mask)]


@handles(SNU, SSNU)
def _unit(context, call, layer, values):
    return _lower(context, call, layer, layer.cell, values)


@handles(keras.layers.RNN)
def _rnn(context, call, layer, values):
    if not _is_unit(layer):
        return _through_tf2onnx(context, call, values)
    return _lower(context, call, layer, layer.cell, values)


def _split(call, values):
    """The values of an RNN call: sequence, and the names of its initial s and y or None."""
    if len(values) == 1:
        return values[0], None
    if len(values) == 3:
        return values[0], (values[2].name, values[1].name)
    raise CannotLowerError(f"it takes {len(values)} tensors; a sequence and [y, s] are known")


def _mask(context, value):
    if value.mask is not None and context.streaming:
        raise CannotLowerError("masks have no place in streaming form: leave the step out")
    return value.mask


def _lower(context, call, layer, cell, values):
    value, initial = _split(call, values)
    unit = Unit.of(cell, call.name)
    mask = _mask(context, value)
    x = _float(context, call, 0, value)
    if context.streaming:
        return _lower_step(context, call, layer, unit, x, initial)
    graph = context.graph
    if layer.stateful:
        if initial is None:
            initial = (graph.unique(f"{call.name}/s_in"), graph.unique(f"{call.name}/y_in"))
        else:
            raise CannotLowerError("it is stateful and is given an initial state as well")
    run = onnx_units.scan(
        graph,
        unit,
        x,
        backwards=layer.go_backwards,
        sequence=layer.return_sequences or context.potentials,
        last=not layer.return_sequences,
        mask=mask,
        zero_output_for_mask=layer.zero_output_for_mask,
        initial=initial,
        states=layer.return_state or layer.stateful,
        potentials=context.potentials,
    )
    if layer.stateful:
        _leave(context, call.name, unit, initial, (run.s, run.y))
    _trace(context, call.name, x, run, mask)
    out = run.sequence if layer.return_sequences else run.last
    first = Value(out, mask if layer.return_sequences else None)
    return [first, Value(run.y), Value(run.s)] if layer.return_state else [first]


def _lower_step(context, call, layer, unit, x, initial):
    graph = context.graph
    if layer.go_backwards:
        raise CannotLowerError("go_backwards needs the whole sequence; it cannot stream")
    if not layer.return_sequences or layer.return_state or initial:
        raise CannotLowerError(
            "streaming needs return_sequences=True, no return_state and no initial_state"
        )
    s, y = graph.unique(f"{call.name}/s_in"), graph.unique(f"{call.name}/y_in")
    s_next, y_next = onnx_units.step(graph, unit, x, s, y)
    _leave(context, call.name, unit, (s, y), (s_next, y_next))
    return [Value(y_next)]


def _leave(context, name, unit, entries, results):
    """Pairs of states that enter and leave the graph."""
    for label, entry, result in zip("sy", entries, results, strict=True):
        leave = context.graph.unique(f"{name}/{label}_out")
        context.graph.node("Identity", [result], leave, outputs=[leave])
        context.states.append((unit.units, entry, leave))


def _trace(context, name, x, run, mask):
    if context.potentials:
        trace = {"input": x, "potentials": run.s_sequence, "sequence": run.sequence}
        context.traces[name] = trace | ({"mask": mask} if mask else {})


@handles(keras.layers.Bidirectional)
def _bidirectional(context, call, layer, values):
    forward, backward = layer.forward_layer, layer.backward_layer
    if not (_is_unit(forward) and _is_unit(backward)):
        return _through_tf2onnx(context, call, values)
    if context.streaming:
        raise CannotLowerError("Bidirectional needs the whole sequence; it cannot stream")
    if len(values) != 1 or forward.stateful or forward.return_state:
        raise CannotLowerError("Bidirectional with states is not supported")
    for each in (forward, backward):
        _check_policy(each)
    graph, mask = context.graph, _mask(context, values[0])
    x = _float(context, call, 0, values[0])
    outputs = []
    for each, reverse in ((forward, False), (backward, True)):
        name = f"{call.name}/{each.name}"
        run = onnx_units.scan(
            graph,
            Unit.of(each.cell, name),
            x,
            backwards=each.go_backwards,
            reverse_output=reverse and each.return_sequences,
            sequence=each.return_sequences or context.potentials,
            last=not each.return_sequences,
            mask=mask,
            zero_output_for_mask=each.zero_output_for_mask,
            potentials=context.potentials,
        )
        _trace(context, name, x, run, mask)
        outputs.append(run.sequence if each.return_sequences else run.last)
    out_mask = mask if forward.return_sequences else None
    mode = layer.merge_mode
    if mode is None:
        return [Value(out, out_mask) for out in outputs]
    if mode == "concat":
        return [Value(graph.node("Concat", outputs, f"{call.name}/merge", axis=-1), out_mask)]
    op = {"sum": "Add", "ave": "Add", "mul": "Mul"}[mode]
    merged = graph.node(op, outputs, f"{call.name}/merge")
    if mode == "ave":
        merged = graph.node("Div", [merged, graph.constant(2.0, "two")], f"{call.name}/mean")
    return [Value(merged, out_mask)]


@handles(keras.layers.TimeDistributed)
def _time_distributed(context, call, layer, values):
    """The inner layer on batch and time folded into one axis; no loop."""
    if not _simple(call):
        raise CannotLowerError("TimeDistributed takes one tensor")
    inner, ref, value = layer.layer, call.inputs[0], values[0]
    if context.streaming:
        step = dataclasses.replace(ref, shape=(ref.shape[0], *ref.shape[2:]))
        return convert(context, Call(call.name, inner, (step,), {}), values)
    if type(inner) in (keras.layers.Dense, keras.layers.Activation, keras.layers.ReLU):
        return convert(context, Call(call.name, inner, (ref,), {}), values)
    if isinstance(inner, keras.Model | keras.layers.RNN | keras.layers.Wrapper):
        raise CannotLowerError(f"TimeDistributed around {type(inner).__name__} is not supported")
    graph, name = context.graph, call.name
    lead = graph.node("Shape", [value.name], f"{name}/lead", start=0, end=2)
    tail = graph.node("Shape", [value.name], f"{name}/tail", start=2)
    minus = graph.constant([-1], "last_axis", "int64")
    folded = graph.node("Concat", [minus, tail], f"{name}/folded_shape", axis=0)
    x = graph.node("Reshape", [value.name, folded], f"{name}/folded")
    flat = dataclasses.replace(ref, shape=(None, *ref.shape[2:]))
    result = convert(context, Call(name, inner, (flat,), {}), [Value(x)])[0]
    rest = graph.node("Shape", [result.name], f"{name}/rest", start=1)
    whole = graph.node("Concat", [lead, rest], f"{name}/whole_shape", axis=0)
    return [Value(graph.node("Reshape", [result.name, whole], f"{name}/unfolded"), value.mask)]


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


def _through_tf2onnx(context, call, values):
    """Converts one call on its own with tf2onnx and merges what comes out."""
    layer = call.op
    if getattr(layer, "stateful", False):
        raise CannotLowerError("stateful is supported for SNU and SSNU only")
    if context.streaming and type(layer) not in _STEPWISE:
        raise CannotLowerError("it may mix steps, so it cannot stream")
    import tensorflow as tf

    refs = call.inputs
    names = [value.name for value in values]
    signature = [tf.TensorSpec(_signature(ref.shape, context), ref.dtype) for ref in refs]
    masked = [index for index, value in enumerate(values) if value.mask is not None]
    signature += [tf.TensorSpec((None, None), "bool")] * len(masked)
    names += [values[index].mask for index in masked]
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
        model = _convert_function(function, signature)
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


def _with_time(x):
    return keras.ops.expand_dims(x, 1) if keras.ops.is_tensor(x) else x


def _signature(shape, context):
    """Shape of one input; in streaming form the time axis is gone."""
    if not shape:
        return ()
    return (None, *shape[2:]) if context.streaming else (None, *shape[1:])


def _convert_function(function, signature):
    import tensorflow as tf
    import tf2onnx

    from snukeras.export.graph import OPSET

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


@dataclasses.dataclass(frozen=True)
class UnitLayer:
    """An SNU layer (or one direction of a Bidirectional) as it is called in a model.

    Attributes:
        name: name of its Scan node.
        layer: the recurrent layer with its cell.
        source: the sequence it takes.
        initial: its initial state [y, s], or [].
        reverse: whether the outputs stand in reverse order of processing.
    """

    name: str
    layer: Any
    source: Ref
    initial: list[Ref]
    reverse: bool = False


def unit_layers(plan: Topology) -> list[UnitLayer]:
    """The SNU layers of a model that have a Scan of their own."""
    found = []
    for call in plan.calls:
        if type(call.op) is keras.layers.Bidirectional:
            sides = (call.op.forward_layer, call.op.backward_layer)
            if all(_is_unit(side) for side in sides):
                for side in sides:
                    reverse = side is call.op.backward_layer and side.return_sequences
                    name = f"{call.name}/{side.name}"
                    found.append(UnitLayer(name, side, call.inputs[0], [], reverse))
        elif _is_unit(call.op):
            mask = call.kwargs.get("mask")
            initial = [ref for ref in call.inputs[1:] if ref is not mask]
            found.append(UnitLayer(call.name, call.op, call.inputs[0], initial))
    return found


def _is_unit(layer):
    return type(layer) in (SNU, SSNU) or (
        type(layer) is keras.layers.RNN and type(layer.cell) in (SNUCell, SSNUCell)
    )
