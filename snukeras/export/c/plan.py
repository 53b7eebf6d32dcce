"""What one step of a network computes, as a list of plain operations that C is written from."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from snukeras.export.errors import ExportError, UnsupportedLayersError
from snukeras.export.network import Network
from snukeras.export.onnx.handlers import CannotLowerError, check_policy
from snukeras.layers import (
    LIF,
    SNU,
    SSNU,
    ConvSNU1D,
    ConvSNU2D,
    ConvSSNU1D,
    ConvSSNU2D,
    ElasticDistortion,
    LIFCell,
    RateCoding,
    SNUCell,
    SSNUCell,
)
from snukeras.network.topology import Call, Key, Ref, Topology

_CONVOLUTIONAL = (ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D)
# Layers that do nothing at inference.
_NOTHING = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianNoise,
    keras.layers.GaussianDropout,
    keras.layers.ActivityRegularization,
    ElasticDistortion,
)
# Activations that C is written for.
ACTIVATIONS = (
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "tanh",
    "sigmoid",
    "hard_sigmoid",
    "silu",
    "gelu",
    "exponential",
    "softmax",
    "log_softmax",
)
# What the language and the files of an export call something else already.
_KEYWORDS = frozenset(
    {"auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else"}
    | {"enum", "extern", "float", "for", "goto", "if", "inline", "int", "long", "register"}
    | {"restrict", "return", "short", "signed", "sizeof", "static", "struct", "switch"}
    | {"typedef", "union", "unsigned", "void", "volatile", "while", "asm", "main"}
)
_RESERVED = _KEYWORDS | frozenset(
    ["net", "i", "j", "k", *(f"output_{number}" for number in range(100))]
)
# Of the slope or scale below zero, where an activation has one.
_SLOPES = {"leaky_relu": 0.2, "elu": 1.0}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What a step hands from one operation to the next.

    Attributes:
        label: A name that C can bear, unique.
        shape: Of one sample and one step.
        spikes: Whether it holds zeros and ones alone, kept as a list of active places.
        over_time: Whether the Keras model has it at every step (axis 1 is time).
        key: The tensor of the Keras model.
    """

    label: str
    shape: tuple[int, ...]
    spikes: bool
    over_time: bool
    key: Key

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Activation:
    """An element-wise function by name, with the slope or scale below zero where it has one."""

    name: str
    slope: float = 0.0


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A product with a matrix (rows, columns), at each of `places` places of a map."""

    kernel: np.ndarray
    places: int

    @property
    def rows(self) -> np.ndarray:
        """The weights as rows of outputs."""
        return self.kernel

    @property
    def terms(self) -> np.ndarray:
        """The sum of |weight| that reaches a column at most, (columns,)."""
        return np.abs(self.kernel.astype("float64")).sum(axis=0)

    def with_rows(self, rows: np.ndarray) -> "Matrix":
        """Return the product with other weights."""
        return dataclasses.replace(self, kernel=rows)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution with a kernel (height, width, channels, filters); maps of rank 1 have height 1.

    Attributes:
        kernel: The weights.
        source, target: Height and width of the maps.
        strides, before, dilation: By height and width; `before` is the padding before a map.
    """

    kernel: np.ndarray
    source: tuple[int, int]
    target: tuple[int, int]
    strides: tuple[int, int]
    before: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def places(self) -> int:
        """The places of the output map."""
        return math.prod(self.target)

    @property
    def rows(self) -> np.ndarray:
        """The weights as rows of outputs."""
        return self.kernel.reshape(-1, self.kernel.shape[-1])

    @property
    def terms(self) -> np.ndarray:
        """The sum of |weight| that reaches a filter at most, (filters,)."""
        return np.abs(self.rows.astype("float64")).sum(axis=0)

    def with_rows(self, rows: np.ndarray) -> "Convolution":
        """Return the product with other weights."""
        return dataclasses.replace(self, kernel=rows.reshape(self.kernel.shape))


Product = Matrix | Convolution


@dataclasses.dataclass(frozen=True)
class Units:
    """A layer of units; decay, threshold and bias are (columns,), the same at all places.

    Attributes:
        label: A name that C can bear, unique.
        call: Name of the call in the network.
        layer: The layer of Keras.
        source, target: What it takes and puts out.
        product, loop: Of the input, and of the outputs of the step before.
        bias, decay, threshold: float32.
        activation: g of the state.
        spiking: Whether it puts out spikes, else the sigmoid.
        inhibition: Whether the largest output of a place is the gate of the place.
    """

    label: str
    call: str
    layer: Any
    source: Tensor
    target: Tensor
    product: Product
    loop: Product | None
    bias: np.ndarray | None
    decay: np.ndarray
    threshold: np.ndarray
    activation: Activation
    spiking: bool
    inhibition: bool


@dataclasses.dataclass(frozen=True)
class Neurons:
    """A LIF layer; the equations and names are those of `LIFCell`, numbers are (units,) float32.

    Attributes:
        label, call, layer, source, target: As above.
        loop: Of the spikes of the step before.
        decay, gain, bias, start: Of every neuron; `start` is the first potential.
        threshold: None where the neurons put out their potential.
        reset: "subtract", "zero", "silence" or None.
        subtracted: What a spike takes from the potential, or None.
        synaptic_decay: None without a synaptic current.
        several: Whether outputs are counts of spikes, numbers then.
        delayed: Whether outputs are those of the step before.
    """

    label: str
    call: str
    layer: LIF
    source: Tensor
    target: Tensor
    loop: Matrix | None
    decay: np.ndarray
    gain: np.ndarray
    bias: np.ndarray
    start: np.ndarray
    threshold: np.ndarray | None
    reset: str | None
    subtracted: np.ndarray | None
    synaptic_decay: np.ndarray | None
    several: bool
    delayed: bool


@dataclasses.dataclass(frozen=True)
class Dense:
    """A product, a bias and an activation: a Dense layer, or a convolution of Keras."""

    label: str
    call: str
    source: Tensor
    target: Tensor
    product: Product
    bias: np.ndarray | None
    activation: Activation


@dataclasses.dataclass(frozen=True)
class Activate:
    """An activation alone."""

    label: str
    call: str
    source: Tensor
    target: Tensor
    activation: Activation


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean of the steps so far."""

    label: str
    call: str
    source: Tensor
    target: Tensor


@dataclasses.dataclass(frozen=True)
class Pool:
    """The largest or the mean number in each window of a map; maps of rank 1 have height 1.

    Attributes:
        label, call, source, target: As above.
        largest: The largest, else the mean; places beside the map do not count.
        maps: Height and width of the input map and of the output map.
        channels: Of both.
        window, strides, before: By height and width; `before` is the padding before a map.
    """

    label: str
    call: str
    source: Tensor
    target: Tensor
    largest: bool
    maps: tuple[tuple[int, int], tuple[int, int]]
    channels: int
    window: tuple[int, int]
    strides: tuple[int, int]
    before: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Coding:
    """Spikes where the input, times the probability, exceeds the threshold of the step.

    Attributes:
        label, call, source, target: As above.
        thresholds: (steps, size); after the last step the first one comes again.
        probability: Of a spike of the value 1.
    """

    label: str
    call: str
    source: Tensor
    target: Tensor
    thresholds: np.ndarray
    probability: float


Operation = Units | Neurons | Dense | Activate | Mean | Pool | Coding


@dataclasses.dataclass(frozen=True)
class Plan:
    """One step of a network.

    Attributes:
        name: A name that C can bear, before every name of the files.
        title: The network's own name.
        inputs, outputs: What comes in and goes out.
        operations: In their order.
    """

    name: str
    title: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operations: tuple[Operation, ...]

    @property
    def units(self) -> list[Units | Neurons]:
        """The layers of units and of LIF neurons."""
        return [each for each in self.operations if isinstance(each, Units | Neurons)]

    @property
    def weights(self) -> int:
        """The number of weights of matrices and kernels."""
        return sum(
            product.rows.size
            for each in self.operations
            for product in (getattr(each, "product", None), getattr(each, "loop", None))
            if product is not None
        )


def read(network: Network, title: str) -> Plan:
    """Read one step of a network.

    Args:
        network: The network.
        title: Its name; a preset's or file's name is stripped of `zoo:` and `.keras`.

    Raises:
        UnsupportedLayersError: Layers have no form in C; all are named.
    """
    return _Reader(network.topology, title).plan()


class _Reader:
    """Turns the calls of a network into operations, in their order."""

    def __init__(self, topology: Topology, title: str) -> None:
        self.topology = topology
        self.title = title.removeprefix("zoo:").removesuffix(".keras")
        self.taken = set(_RESERVED)
        self.tensors: dict[Key, Tensor] = {}
        self.operations: list[Operation] = []

    def plan(self) -> Plan:
        name = identifier(self.title)
        problems: dict[str, str] = {}
        for entry, ref in self.topology.inputs:
            if reason := self._enter(entry, ref):
                problems[entry] = reason
        inputs = tuple(self.tensors.values())
        for call in self.topology.calls:
            known = [self.tensors[ref.key] for ref in call.inputs if ref.key in self.tensors]
            if len(known) < len(call.inputs):
                # A layer before it is refused; this one is looked at all the same.
                if not _is_known(call.op):
                    problems[call.name] = _refusal(call.op)
                continue
            try:
                self._take(call, known)
            except ExportError as error:
                problems[call.name] = error.message
        if problems:
            raise UnsupportedLayersError(problems)
        outputs = tuple(self.tensors[ref.key] for _, ref in self.topology.outputs)
        return Plan(name, self.title, inputs, outputs, tuple(self.operations))

    def _enter(self, name: str, ref: Ref) -> str | None:
        """Add an input; return why it cannot be one, or None."""
        if not ref.dtype.startswith("float"):
            return (
                f"an input of {ref.dtype}; C takes numbers. Leave an Embedding out, and give the "
                "step its rows"
            )
        over_time = len(ref.shape) > 2 and not self._is_coded(ref.key)
        shape = ref.shape[2:] if over_time else ref.shape[1:]
        if any(size is None for size in shape) or not shape:
            return f"an input of shape {ref.shape}; sizes but batch and time must be known"
        label = self._label(name)
        self.tensors[ref.key] = Tensor(label, tuple(map(int, shape)), False, over_time, ref.key)  # type: ignore[arg-type]
        return None

    def _is_coded(self, key: Key) -> bool:
        """Whether an input is an image that RateCoding makes a sequence of."""
        reached = {key}
        for call in self.topology.calls:
            if any(ref.key in reached for ref in call.inputs):
                if isinstance(call.op, RateCoding):
                    return True
                if isinstance(call.op, keras.layers.RNN):
                    return False
                reached.add((call.name, 0))
        return False

    def _label(self, name: str) -> str:
        label = base = identifier(name)
        number = 1
        while label in self.taken:
            number += 1
            label = f"{base}_{number}"
        self.taken.add(label)
        return label

    def _take(self, call: Call, known: list[Tensor]) -> None:
        """Add the operation of a call.

        Raises:
            ExportError: It has none; the message is the reason.
        """
        layer = call.op
        if isinstance(layer, keras.layers.TimeDistributed) and known[0].over_time:
            layer = layer.layer
        taker = _taker(layer)
        if taker is None:
            raise CannotLowerError(_refusal(call.op))
        check_policy(layer)
        if len(known) != 1:
            raise CannotLowerError("it takes several tensors, a mask or initial states")
        taker(self, call, layer, known[0])

    def put(
        self, call: Call, shape: tuple[int, ...], spikes: bool, over_time: bool
    ) -> tuple[str, Tensor]:
        """Return the label of a call and the tensor that it puts out."""
        label = self._label(call.name)
        tensor = Tensor(label, shape, spikes, over_time, (call.name, 0))
        self.tensors[tensor.key] = tensor
        return label, tensor


Taker = Callable[[_Reader, Call, Any, Tensor], None]
_TAKERS: dict[type, Taker] = {}


def _takes(*classes: type) -> Callable[[Taker], Taker]:
    def register(taker: Taker) -> Taker:
        for cls in classes:
            _TAKERS[cls] = taker
        return taker

    return register


def _taker(layer: Any) -> Taker | None:
    if type(layer) is keras.layers.RNN and type(layer.cell) not in (SNUCell, SSNUCell):
        return None
    return _TAKERS.get(type(layer))


def _is_known(layer: Any) -> bool:
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    return _taker(inner) is not None


def _refusal(layer: Any) -> str:
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    name = type(inner).__name__
    if isinstance(inner, keras.layers.Masking) or name in ("NotEqual", "Any"):
        return "masks have no form in C; leave them out, and do not call the step at masked steps"
    if isinstance(inner, keras.layers.RNN):
        name += f" of {type(inner.cell).__name__}"
    if isinstance(inner, keras.layers.BatchNormalization):
        return f"{name} has no form in C; snukeras.fold(model) puts it into the layer beside it"
    return f"{name} has no form in C"


def own_layers() -> list[str]:
    """Return the names of the layers that C is written for."""
    return sorted({cls.__name__ for cls in _TAKERS})


@_takes(SNU, SSNU, keras.layers.RNN, *_CONVOLUTIONAL)
def _units(reader: _Reader, call: Call, layer: Any, source: Tensor) -> None:
    cell = layer.cell
    _check_step(layer, source)
    if getattr(layer, "return_membrane", False):
        raise CannotLowerError(
            "return_membrane has no place in one step; the potentials are in the struct"
        )
    activation = activation_of(cell.state_activation)
    if activation.name in ("softmax", "log_softmax"):
        raise CannotLowerError(f"state_activation {activation.name!r} has no form in C")
    if isinstance(layer, _CONVOLUTIONAL):
        product, loop = _convolutions(cell, source)
        shape = (*cell.map_shape, cell.filters)
    else:
        if len(source.shape) != 1:
            raise CannotLowerError(f"its input has the shape {source.shape} in a step")
        product = Matrix(_array(cell.kernel), 1)
        weight = cell.recurrent_kernel
        loop = None if weight is None else Matrix(_array(weight), 1)
        shape = (cell.units,)
    label, target = reader.put(call, shape, bool(cell.spiking), layer.return_sequences)
    reader.operations.append(
        Units(
            label,
            call.name,
            layer,
            source,
            target,
            product,
            loop,
            None if cell.bias is None else _array(cell.bias),
            np.asarray(cell.decay_values(), "float32"),
            np.asarray(cell.threshold_values(), "float32"),
            activation,
            bool(cell.spiking),
            bool(cell.lateral_inhibition),
        )
    )


def _check_step(layer: Any, source: Tensor) -> None:
    """Refuse what a layer with states cannot do one step after another.

    Raises:
        CannotLowerError: It needs the whole sequence, or puts out its states.
    """
    if not source.over_time:
        raise CannotLowerError("it needs a sequence, and a step of its input has no time")
    if layer.go_backwards:
        raise CannotLowerError("go_backwards needs the whole sequence, not one step")
    if layer.return_state:
        raise CannotLowerError("return_state has no place in a step; the states are in the struct")


@_takes(LIF)
def _neurons(reader: _Reader, call: Call, layer: LIF, source: Tensor) -> None:
    cell = layer.cell
    _check_step(layer, source)
    weight = cell.recurrent_kernel
    spikes = cell.spiking and not cell.several
    label, target = reader.put(call, (cell.units,), spikes, layer.return_sequences)
    reader.operations.append(
        Neurons(
            label,
            call.name,
            layer,
            source,
            target,
            None if weight is None else Matrix(_array(weight), 1),
            _numbers(cell, "decay"),
            _numbers(cell, "gain"),
            _numbers(cell, "bias"),
            _numbers(cell, "initial_potential"),
            _numbers(cell, "threshold") if cell.spiking else None,
            cell.reset,
            _numbers(cell, "subtracted") if cell.reset == "subtract" else None,
            None if cell.synaptic_decay is None else _numbers(cell, "synaptic_decay"),
            cell.several,
            cell.output_delay and cell.spiking,
        )
    )


def _numbers(cell: LIFCell, name: str) -> np.ndarray:
    return np.resize(np.asarray(getattr(cell, name), "float32"), cell.units)


def _convolutions(cell: Any, source: Tensor) -> tuple[Product, Product | None]:
    """Return the convolutions of a cell."""
    one = (1,) * cell.rank
    product = _convolution(
        cell.kernel,
        source.shape[:-1],
        cell.map_shape,
        cell.strides,
        cell.dilation_rate,
        cell.padding,
    )
    weight = cell.recurrent_kernel
    if weight is None:
        return product, None
    return product, _convolution(weight, cell.map_shape, cell.map_shape, one, one, "same")


def _convolution(
    kernel: Any, of: Any, target: Any, strides: Any, dilation: Any, padding: str
) -> Convolution:
    values = _array(kernel).reshape(*_two(kernel.shape[:-2]), *kernel.shape[-2:])
    window = _two(kernel.shape[:-2])
    return Convolution(
        values,
        _two(of),
        _two(target),
        _two(strides),
        _before(of, target, window, strides, dilation, padding),
        _two(dilation),
    )


def _two(sizes: Any) -> tuple[int, int]:
    """Return height and width; a map of rank 1 has height 1."""
    first, last = [1] * (2 - len(sizes)) + [int(size) for size in sizes]
    return first, last


def _before(
    of: Any, target: Any, window: Any, strides: Any, dilation: Any, padding: str
) -> tuple[int, int]:
    """Return the padding before a map, by height and width."""
    if padding != "same":
        return (0, 0)
    axes = (_two(sizes) for sizes in (target, strides, dilation, window, of))
    first, last = (
        max((t - 1) * s + d * (k - 1) + 1 - size, 0) // 2
        for t, s, d, k, size in zip(*axes, strict=True)
    )
    return first, last


@_takes(keras.layers.Dense)
def _dense(reader: _Reader, call: Call, layer: Any, source: Tensor) -> None:
    kernel = _array(layer.kernel)
    product = Matrix(kernel, source.size // kernel.shape[0])
    label, target = reader.put(call, (*source.shape[:-1], kernel.shape[1]), False, source.over_time)
    bias = None if layer.bias is None else _array(layer.bias)
    activation = activation_of(layer.activation)
    reader.operations.append(Dense(label, call.name, source, target, product, bias, activation))


def _map_shape(
    reader: _Reader, call: Call, layer: Any, source: Tensor, rank: int
) -> tuple[int, ...]:
    """Return the shape that a layer over maps makes of a step.

    Raises:
        CannotLowerError: Its maps are not those of a step.
    """
    if source.over_time and layer is call.op:
        raise CannotLowerError("it goes over time; put it into TimeDistributed, which takes a step")
    if len(source.shape) != rank + 1 or layer.data_format != "channels_last":
        raise CannotLowerError("it needs maps in a step, channels last")
    return tuple(map(int, layer.compute_output_shape((None, *source.shape))[1:]))


@_takes(keras.layers.Conv1D, keras.layers.Conv2D)
def _conv(reader: _Reader, call: Call, layer: Any, source: Tensor) -> None:
    shape = _map_shape(reader, call, layer, source, layer.rank)
    if layer.groups != 1 or layer.padding not in ("valid", "same"):
        raise CannotLowerError("with groups or padding='causal' it has no form in C")
    product = _convolution(
        layer.kernel,
        source.shape[:-1],
        shape[:-1],
        layer.strides,
        layer.dilation_rate,
        layer.padding,
    )
    label, target = reader.put(call, shape, False, source.over_time)
    bias = None if layer.bias is None else _array(layer.bias)
    activation = activation_of(layer.activation)
    reader.operations.append(Dense(label, call.name, source, target, product, bias, activation))


@_takes(
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalAveragePooling2D,
)
def _pool(reader: _Reader, call: Call, layer: Any, source: Tensor) -> None:
    rank = 2 if type(layer).__name__.endswith("2D") else 1
    shape = _map_shape(reader, call, layer, source, rank)
    of, whole = source.shape[:-1], not hasattr(layer, "pool_size")
    after = (1,) * rank if whole else shape[:-1]
    window = of if whole else layer.pool_size
    strides = of if whole else layer.strides
    padding = "valid" if whole else layer.padding
    before = _before(of, after, window, strides, (1,) * rank, padding)
    label, target = reader.put(call, shape, False, source.over_time)
    reader.operations.append(
        Pool(
            label,
            call.name,
            source,
            target,
            "Max" in type(layer).__name__,
            (_two(of), _two(after)),
            source.shape[-1],
            _two(window),
            _two(strides),
            before,
        )
    )


@_takes(
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
)
def _activate(reader: _Reader, call: Call, layer: Any, source: Tensor) -> None:
    activation = activation_of(layer)
    label, target = reader.put(call, source.shape, False, source.over_time)
    reader.operations.append(Activate(label, call.name, source, target, activation))


@_takes(keras.layers.GlobalAveragePooling1D)
def _mean(reader: _Reader, call: Call, layer: Any, source: Tensor) -> None:
    if layer is not call.op and len(source.shape) == 2:  # over the places of a step
        _pool(reader, call, layer, source)
        return
    if not source.over_time or len(source.shape) != 1 or layer.data_format != "channels_last":
        raise CannotLowerError("it must take the mean over time of (batch, time, features)")
    shape = (1, *source.shape) if layer.keepdims else source.shape
    label, target = reader.put(call, shape, False, False)
    reader.operations.append(Mean(label, call.name, source, target))


@_takes(RateCoding)
def _coding(reader: _Reader, call: Call, layer: Any, source: Tensor) -> None:
    if layer.inference != "fixed":
        raise CannotLowerError(
            "it draws new spikes at each call; give it inference='fixed', or export the layers "
            "behind it, which take spikes step by step"
        )
    thresholds = layer.thresholds(source.shape).reshape(layer.steps, -1)
    label, target = reader.put(call, source.shape, True, True)
    reader.operations.append(
        Coding(label, call.name, source, target, thresholds, float(layer.probability))
    )


@_takes(*_NOTHING)
def _nothing(reader: _Reader, call: Call, layer: Any, source: Tensor) -> None:
    reader.tensors[(call.name, 0)] = source


@_takes(keras.layers.Reshape, keras.layers.Flatten)
def _reshape(reader: _Reader, call: Call, layer: Any, source: Tensor) -> None:
    inside = layer is not call.op  # TimeDistributed keeps the time out of it
    wanted = getattr(layer, "target_shape", (-1,))
    if source.over_time and not inside:
        if isinstance(layer, keras.layers.Flatten):
            raise CannotLowerError("it joins time and features; use Reshape((-1, features))")
        wanted = wanted[1:]
    known = math.prod(size for size in wanted if size not in (-1, None))
    shape = tuple(source.size // known if size in (-1, None) else int(size) for size in wanted)
    if math.prod(shape) != source.size or not shape:
        raise CannotLowerError("it moves elements between steps")
    tensor = dataclasses.replace(source, shape=shape)
    reader.tensors[(call.name, 0)] = tensor


def activation_of(activation: Any) -> Activation:
    """Return an activation by its name.

    Raises:
        CannotLowerError: C has no form for it.
    """
    if activation is None:
        return Activation("linear")
    if isinstance(activation, keras.layers.Activation):
        return activation_of(activation.activation)
    if isinstance(activation, keras.layers.LeakyReLU):
        return Activation("leaky_relu", float(activation.negative_slope))
    if isinstance(activation, keras.layers.ELU):
        return Activation("elu", float(activation.alpha))
    if isinstance(activation, keras.layers.Softmax):
        if activation.axis == -1:
            return Activation("softmax")
    elif isinstance(activation, keras.layers.ReLU):
        slope = float(activation.negative_slope)
        if activation.max_value is None and not activation.threshold:
            return Activation("leaky_relu", slope) if slope else Activation("relu")
    else:
        for name in ACTIVATIONS:
            if activation is getattr(keras.activations, name):
                return Activation(name, _SLOPES.get(name, 0.0))
    label = getattr(activation, "__name__", type(activation).__name__)
    raise CannotLowerError(
        f"the activation {label!r} has no form in C; use one of {', '.join(ACTIVATIONS)}"
    )


def identifier(name: str) -> str:
    """Return a name that C can bear.

    Args:
        name: Any text.
    """
    found = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    if not found or found[0].isdigit():
        found = f"n{found}"
    return f"{found}_net" if found in _KEYWORDS else found


def _array(weight: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(weight).astype("float32")
