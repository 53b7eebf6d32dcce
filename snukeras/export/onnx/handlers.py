"""How a Keras layer finds its ONNX form: a register of handlers, and what they work with.

A layer is taught to the exporter by a function that adds its nodes to the graph:

    @handles(MyLayer)
    def _my_layer(context, call, layer, values):
        x = as_float(context, call, 0, values[0])
        return [Value(context.graph.node("Relu", [x], f"{call.name}/relu"), values[0].mask)]

It returns the outputs in Keras's order, or None where it has no form of its own for these
arguments; tf2onnx, where it is installed, then converts the call, as it does every layer without a
handler.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras

from snukeras.export.errors import ExportError
from snukeras.export.onnx.activations import Function, emitter
from snukeras.export.onnx.graph import GraphBuilder, element_type
from snukeras.layers import LogMel
from snukeras.network.topology import Call, Key

if TYPE_CHECKING:
    from snukeras.export.onnx.layers.snu_scan import Trace


class CannotLowerError(ExportError):
    """A layer cannot be expressed; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor in the ONNX graph, with the mask that Keras would carry along, if any.

    Attributes:
        name: Its name.
        mask: Name of the mask.
        carried: Whether the mask goes along though the model's config does not say so: a layer
            sets it when it is called.
    """

    name: str
    mask: str | None = None
    carried: bool = False


@dataclasses.dataclass
class Context:
    """What handlers need: the graph, and what has been asked of it.

    Attributes:
        graph: The graph being built.
        streaming: One step instead of a sequence; tensors have no time axis then.
        states: (units, input name, output name) of states that enter and leave the graph.
        traces: By layer of units, the names by which the verification looks into its loop.
        frames: Where streaming takes a frame of samples a step: the LogMel that an input goes to.
    """

    graph: GraphBuilder
    streaming: bool = False
    states: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    traces: "dict[str, Trace]" = dataclasses.field(default_factory=dict)
    frames: dict[Key, LogMel] = dataclasses.field(default_factory=dict)

    def enter(self, name: str, label: str) -> str:
        """Return the name of a state that enters the graph, NAME/LABEL_in; call `leave` later."""
        return self.graph.unique(f"{name}/{label}_in")

    def leave(self, name: str, label: str, units: int, entry: str, result: str) -> None:
        """Let a state leave the graph as NAME/LABEL_out, paired with the one that entered."""
        out = self.graph.unique(f"{name}/{label}_out")
        self.graph.node("Identity", [result], out, outputs=[out])
        self.states.append((units, entry, out))


Handler = Callable[[Context, Call, keras.Layer, list[Value]], list[Value] | None]
_HANDLERS: dict[type, Handler] = {}
_OPERATIONS: dict[str, Handler] = {}
# Methods that a subclass may have of its own and still compute what its base does.
_SAME_LAYER = {"__init__", "get_config", "from_config"}


def handles(*classes: type) -> Callable[[Handler], Handler]:
    """Register a handler for these layer classes, and subclasses that compute nothing else."""

    def register(handler: Handler) -> Handler:
        for cls in classes:
            _HANDLERS[cls] = handler
        return handler

    return register


def handles_operations(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler for operations of `keras.ops` in a model, by the names of their classes.

    The classes are no public API of Keras.
    """

    def register(handler: Handler) -> Handler:
        for name in names:
            _OPERATIONS[name] = handler
        return handler

    return register


def timeless(handler: Handler) -> Handler:
    """Wrap the handler of a layer that may mix steps: in streaming form it stands behind time.

    Such a layer streams where its inputs have no time axis, as behind a mean over time.
    """

    @functools.wraps(handler)
    def guarded(
        context: Context, call: Call, layer: keras.Layer, values: list[Value]
    ) -> list[Value] | None:
        if context.streaming:
            if not all(is_timeless(ref.shape) for ref in call.inputs):
                raise CannotLowerError("it may mix steps, so it cannot stream")
            context = dataclasses.replace(context, streaming=False)
        return handler(context, call, layer, values)

    return guarded


def is_timeless(shape: tuple[int | None, ...]) -> bool:
    """Return whether a tensor has no time axis in the whole form, as a mean over time has none."""
    return len(shape) == 2 and shape[1] is not None


def handler_of(layer: keras.Layer) -> Handler | None:
    """Return the handler of a layer, or of a Keras operation, or None."""
    form = form_of(layer)
    if form is not None:
        return _HANDLERS[form]
    if hasattr(layer, "weights") or type(layer).__module__.partition(".")[0] != "keras":
        return None
    return _OPERATIONS.get(type(layer).__name__)


def form_of(layer: keras.Layer) -> type | None:
    """Return the class whose form in ONNX a layer has, or None.

    A subclass that only takes other arguments computes what its base does, so it has the same
    form. One that defines any other method may compute something else.
    """
    own: set[str] = set()
    for cls in type(layer).__mro__:
        if cls in _HANDLERS:
            return cls if own <= _SAME_LAYER else None
        own |= {n for n, value in vars(cls).items() if callable(value) or type(value) is property}
    return None


def base_of(layer: keras.Layer) -> type | None:
    """Return the nearest class above a layer's own that has a handler, or None."""
    return next((cls for cls in type(layer).__mro__[1:] if cls in _HANDLERS), None)


def own_layers() -> list[str]:
    """Return the names of the layers that have a form of our own."""
    return sorted({cls.__name__ for cls in _HANDLERS})


def check_policy(layer: keras.Layer) -> None:
    """Raise CannotLowerError where a layer computes in anything but float32."""
    policy = getattr(layer, "dtype_policy", None)
    if policy is None or policy.name == "float32" or ("int" in policy.name and not layer.weights):
        return
    if policy.compute_dtype != "float32" or any(v.dtype != "float32" for v in layer.weights):
        raise CannotLowerError(
            f"its dtype policy is {policy.name!r}; export needs float32: set "
            "keras.config.set_dtype_policy('float32'), build the model again, copy the weights"
        )


def as_float(context: Context, call: Call, index: int, value: Value) -> str:
    """Return the tensor as float32, cast where the model feeds integers."""
    if call.inputs[index].dtype == "float32":
        return value.name
    return context.graph.node("Cast", [value.name], f"{call.name}/cast", to=element_type("float32"))


def activate(context: Context, call: Call, activation: keras.Layer | Function, x: str) -> str:
    """Return x after an activation that `emitter` knows."""
    emit = emitter(activation)
    if emit is None:
        raise CannotLowerError(f"the activation {activation!r} has no ONNX form")
    return emit(context.graph, x, f"{call.name}/activation")


def mask_of(context: Context, value: Value) -> str | None:
    """Return the mask of a sequence; in streaming form there is none."""
    if value.mask is not None and context.streaming:
        raise CannotLowerError("masks have no place in streaming form: leave the step out")
    return value.mask


def check_step(layer: keras.layers.RNN, starts: bool) -> None:
    """Raise CannotLowerError where a recurrent layer cannot go step by step.

    Args:
        layer: The layer.
        starts: Whether it is given an initial state.
    """
    if layer.go_backwards:
        raise CannotLowerError("go_backwards needs the whole sequence; it cannot stream")
    if not layer.return_sequences or layer.return_state or starts:
        raise CannotLowerError(
            "streaming needs return_sequences=True, no return_state and no initial_state"
        )
