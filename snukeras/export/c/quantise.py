"""A step in integers: int8 weights with a scale a column, spikes, and 16-bit numbers.

A number x of the network is an integer of 16 bits, x = value / 2^bits. A weight is w = q * scale
with q from -127 to 127 and a scale of its column. Sums have 32 bits and count in scale / 2^bits:
as many bits as leave no sum that can overflow, whatever the input is.
"""

import dataclasses
import math

import numpy as np

from snukeras.export.c.plan import (
    Activate,
    Activation,
    Coding,
    Dense,
    Mean,
    Neurons,
    Operation,
    Plan,
    Pool,
    Product,
    Tensor,
    Units,
)

# Sums and potentials stay within this.
LARGEST = 2**30
# Fractional bits: of sums at most, of outputs of sigmoid and the like, of what goes into them.
SUM_BITS, SOFT_BITS, TABLE_BITS = 12, 14, 11
# Of LIF neurons: the bits of the largest input in a current, of the smallest threshold.
CURRENT_BITS, POTENTIAL_BITS = 18, 16
# Values between the tabulated ones are interpolated; the tables have 512 parts of 2^6 / 2^11.
PARTS, PART_BITS = 512, 6
_SOFT = ("sigmoid", "tanh", "softmax")
_PLAIN = ("linear", "relu")
# Activations that integers are written for.
ACTIVATIONS = (*_PLAIN, *_SOFT)


class NoIntegersError(Exception):
    """A layer has no form in integers; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A product with int8 weights.

    Attributes:
        product: The product; its rows are integers.
        limit: The largest element that it takes, or None where all are within.
        drop: Bits that are rounded away of an element.
        gain: An element then counts 2^gain in the sums.
    """

    product: Product
    limit: int | None
    drop: int
    gain: int


@dataclasses.dataclass(frozen=True)
class Rescale:
    """Sums times `factor` of the column, shifted right by `right`."""

    factor: np.ndarray
    right: int


@dataclasses.dataclass(frozen=True)
class IntegerUnits:
    """A layer of units in integers.

    Attributes:
        of: The layer.
        product, loop: With int8 weights.
        bits: Fractional bits of sums.
        scale: Of weights, by column.
        decay: In 1 / 2^15.
        bias, threshold: In units of the sums.
        soft: From the sums to the input of the sigmoid; None for spikes.
    """

    of: Units
    product: Scaled
    loop: Scaled | None
    bits: int
    scale: np.ndarray
    decay: np.ndarray
    bias: np.ndarray | None
    threshold: np.ndarray
    soft: Rescale | None


@dataclasses.dataclass(frozen=True)
class IntegerNeurons:
    """A LIF layer in integers; currents and potentials stay within LARGEST.

    Attributes:
        of: The layer.
        source_gain: An element of the input counts 2^source_gain in the current.
        loop: int8 weights of the spikes of the step before, or None.
        loop_out: From their sums to the current.
        slow, decay: synaptic_decay and decay in 1 / 2^15; `slow` is None without a current.
        drive: From the current to the potential.
        bits: Fractional bits of the potential.
        bias, start, threshold, subtracted: In the units of the potential.
        most: The largest count of spikes in a step.
        shift: Bits that are rounded away of a potential that is put out; below 0 it is multiplied.
    """

    of: Neurons
    source_gain: int
    loop: np.ndarray | None
    loop_out: Rescale | None
    slow: np.ndarray | None
    decay: np.ndarray
    drive: Rescale
    bits: int
    bias: np.ndarray
    start: np.ndarray
    threshold: np.ndarray | None
    subtracted: np.ndarray | None
    most: int
    shift: int


@dataclasses.dataclass(frozen=True)
class IntegerDense:
    """A Dense layer in integers; `out` leads to the output's bits, or to those of the tables."""

    of: Dense
    product: Scaled
    bits: int
    scale: np.ndarray
    bias: np.ndarray | None
    out: Rescale


@dataclasses.dataclass(frozen=True)
class IntegerActivate:
    """An activation alone: of `source_bits`."""

    of: Activate
    source_bits: int


@dataclasses.dataclass(frozen=True)
class IntegerMean:
    """The mean of the steps so far; spikes count 2^gain."""

    of: Mean
    gain: int


@dataclasses.dataclass(frozen=True)
class IntegerPool:
    """The largest or the mean of windows; in a mean, spikes count 2^gain."""

    of: Pool
    gain: int


@dataclasses.dataclass(frozen=True)
class IntegerCoding:
    """Rate coding; `thresholds` count in the bits of the input."""

    of: Coding
    thresholds: np.ndarray


IntegerOperation = (
    IntegerUnits
    | IntegerNeurons
    | IntegerDense
    | IntegerActivate
    | IntegerMean
    | IntegerPool
    | IntegerCoding
)


@dataclasses.dataclass(frozen=True)
class Integers:
    """One step of a network in integers.

    Attributes:
        plan: The plan.
        bits: Fractional bits of each tensor, by label.
        operations: In their order.
    """

    plan: Plan
    bits: dict[str, int]
    operations: tuple[IntegerOperation, ...]


@dataclasses.dataclass(frozen=True)
class Range:
    """What samples say of a tensor.

    Attributes:
        peak: The largest magnitude.
        whole: The fewest fractional bits that hold every sample exactly, or as many as 16 bits have
            room for.
    """

    peak: float
    whole: int

    @classmethod
    def of(cls, values: np.ndarray) -> "Range":
        """Look at samples."""
        values = np.asarray(values, "float64")
        found = cls(float(np.abs(values).max(initial=0.0)), 0)
        for bits in range(found.room):
            if np.array_equal(values * 2.0**bits, np.round(values * 2.0**bits)):
                return cls(found.peak, bits)
        return cls(found.peak, found.room)

    @property
    def power(self) -> int:
        """The power of two that is not below the peak."""
        return math.ceil(math.log2(self.peak)) if self.peak > 2.0**-40 else 0

    @property
    def room(self) -> int:
        """The fractional bits that 16 bits have room for, and one bit more before the point."""
        return SOFT_BITS - self.power


def quantise(plan: Plan, ranges: dict[str, Range]) -> Integers:
    """Put a plan into integers.

    Args:
        plan: The plan.
        ranges: Of inputs, and of outputs of Dense layers and of neurons that do not fire, by label.

    Raises:
        NoIntegersError: A layer has no form in integers.
    """
    return _Quantiser(plan, ranges).integers()


class _Quantiser:
    """Goes through the operations and keeps the bits and the limits of tensors."""

    def __init__(self, plan: Plan, ranges: dict[str, Range]) -> None:
        self.plan, self.ranges = plan, ranges
        self.bits: dict[str, int] = {}
        self.largest: dict[str, int] = {}
        self.limits: dict[str, int] = {}

    def integers(self) -> Integers:
        for tensor in self.plan.inputs:
            found = self.ranges[tensor.label]
            limit = 2 ** max(found.power + found.whole, 0)
            self.keep(tensor, found.whole, limit)
            self.limits[tensor.label] = limit
        operations = tuple(self.operation(each) for each in self.plan.operations)
        return Integers(self.plan, self.bits, operations)

    def operation(self, operation: Operation) -> IntegerOperation:
        match operation:
            case Units():
                return self.units(operation)
            case Neurons():
                return self.neurons(operation)
            case Dense():
                return self.dense(operation)
            case Activate():
                source_bits = self.bits[operation.source.label]
                bits = self.checked(operation.call, operation.activation, source_bits)
                self.keep(operation.target, bits, 32767)
                return IntegerActivate(operation, source_bits)
            case Mean():
                source = operation.source
                bits = SOFT_BITS if source.spikes else self.bits[source.label]
                self.keep(operation.target, bits, 2**bits if source.spikes else 32767)
                return IntegerMean(operation, bits - self.bits[source.label])
            case Pool():
                return self.pool(operation)
            case Coding():
                self.keep(operation.target, 0, 1)
                bits = self.bits[operation.source.label]
                found = operation.thresholds.astype("float64") / operation.probability
                thresholds = np.minimum(np.floor(found * 2.0**bits), 32767).astype("int64")
                return IntegerCoding(operation, thresholds)

    def pool(self, pool: Pool) -> IntegerPool:
        source = pool.source
        gain = SOFT_BITS if source.spikes and not pool.largest else 0
        self.keep(pool.target, self.bits[source.label] + gain, self.largest[source.label] * 2**gain)
        if source.label in self.limits:
            self.limits[pool.target.label] = self.limits[source.label]
        return IntegerPool(pool, gain)

    def keep(self, tensor: Tensor, bits: int, largest: int) -> None:
        self.bits[tensor.label], self.largest[tensor.label] = bits, largest

    def checked(self, call: str, activation: Activation, plain_bits: int) -> int:
        """Return the bits behind an activation."""
        if activation.name in _SOFT:
            return SOFT_BITS
        if activation.name in _PLAIN:
            return plain_bits
        known = ", ".join(ACTIVATIONS)
        raise NoIntegersError(f"{call} has the activation {activation.name}; int8 knows {known}")

    def scaled(self, product: Product, source: Tensor, scale: np.ndarray, bits: int) -> Scaled:
        """Round the weights of a product for sums of some bits."""
        given = self.bits[source.label]
        kept = min(given, bits)
        rows = np.clip(np.round(product.rows.astype("float64") / scale), -127, 127)
        return Scaled(
            product.with_rows(rows.astype("int64")),
            self.limits.get(source.label),
            given - kept,
            bits - kept,
        )

    def sum_bits(
        self,
        call: str,
        parts: list[tuple[Product, Tensor]],
        constant: np.ndarray,
        scale: np.ndarray,
    ) -> int:
        """Return as many bits as leave no sum that overflows.

        Args:
            call: The layer, for the error.
            parts: The products, and what they take.
            constant: What is added to every sum.
            scale: Of the weights.
        """
        least = 0 if any(source.spikes for _, source in parts) else -SOFT_BITS
        sizes = [self.largest[source.label] / 2.0 ** self.bits[source.label] for _, source in parts]
        most = SUM_BITS - min(0, math.floor(math.log2(max(sizes))))
        for bits in range(most, least - 1, -1):
            worst = np.abs(_rounded(constant / scale, bits))
            for product, source in parts:
                found = self.scaled(product, source, scale, bits)
                element = (self.largest[source.label] + 2**found.drop // 2) >> found.drop
                worst = worst + found.product.terms * element * 2**found.gain
            if worst.max(initial=0) < LARGEST:
                return bits
        raise NoIntegersError(f"the sums of {call} are too large for 32 bits")

    def units(self, units: Units) -> IntegerUnits:
        if units.activation.name not in _PLAIN:
            raise NoIntegersError(
                f"{units.call} has the state_activation {units.activation.name}; int8 knows "
                f"{', '.join(_PLAIN)}"
            )
        self.keep(units.target, *((0, 1) if units.spiking else (SOFT_BITS, 2**SOFT_BITS)))
        bias = np.zeros_like(units.threshold) if units.bias is None else units.bias
        parts = [(units.product, units.source)]
        if units.loop is not None:
            parts.append((units.loop, units.target))
        scale = _scale([product for product, _ in parts], [units.threshold, bias])
        bits = self.sum_bits(units.call, parts, bias, scale)
        product, *loop = (self.scaled(part, source, scale, bits) for part, source in parts)
        return IntegerUnits(
            units,
            product,
            loop[0] if loop else None,
            bits,
            scale,
            _fraction(units.decay),
            None if units.bias is None else _rounded(bias / scale, bits),
            _rounded(units.threshold / scale, bits),
            None if units.spiking else _rescale(units.call, scale * 2.0 ** (TABLE_BITS - bits)),
        )

    def neurons(self, neurons: Neurons) -> IntegerNeurons:
        source, call = neurons.source, neurons.call
        given, largest = self.bits[source.label], self.largest[source.label]
        # Currents add up over steps: the input leaves them the upper half of their bits.
        alone = neurons.loop is None and neurons.synaptic_decay is None
        source_gain = 0 if alone else max(CURRENT_BITS - largest.bit_length(), 0)
        current_bits = given + source_gain
        bits = self.potential_bits(neurons)
        most, loop, loop_out = 32767, None, None
        if neurons.loop is not None:
            scale = _scale([neurons.loop], [])
            loop = np.clip(np.round(neurons.loop.rows.astype("float64") / scale), -127, 127)
            loop = loop.astype("int64")
            most = min(most, LARGEST // max(int(np.abs(loop).sum(axis=0).max()), 1))
            loop_out = _rescale(call, scale * 2.0**current_bits)
        drive = _rescale(call, neurons.gain.astype("float64") * 2.0 ** (bits - current_bits))
        shift = 0
        if neurons.threshold is None:
            out = SOFT_BITS - 1 - self.ranges[neurons.target.label].power
            shift = bits - out
            self.keep(neurons.target, out, 32767)
        else:
            self.keep(neurons.target, 0, most if neurons.several else 1)

        def whole(values: np.ndarray) -> np.ndarray:
            return _rounded(values, bits)

        threshold = None if neurons.threshold is None else whole(neurons.threshold)
        if neurons.several and threshold is not None:
            threshold = np.maximum(threshold, 1)
        return IntegerNeurons(
            neurons,
            source_gain,
            loop,
            loop_out,
            None if neurons.synaptic_decay is None else _fraction(neurons.synaptic_decay),
            _fraction(neurons.decay),
            drive,
            bits,
            whole(neurons.bias),
            whole(neurons.start),
            threshold,
            None if neurons.subtracted is None else whole(neurons.subtracted),
            most,
            shift,
        )

    def potential_bits(self, neurons: Neurons) -> int:
        """Return the bits of potentials: fine beside the smallest threshold, with room above."""
        source = neurons.source
        peak = self.largest[source.label] / 2.0 ** self.bits[source.label]
        others = [neurons.bias, neurons.start, peak * np.abs(neurons.gain)]
        others += [each for each in (neurons.threshold, neurons.subtracted) if each is not None]
        top = max(float(np.abs(each).max()) for each in others)
        fine = top
        if neurons.threshold is None:
            fine = self.ranges[neurons.target.label].peak
        elif np.any(neurons.threshold):
            fine = float(np.abs(neurons.threshold[neurons.threshold != 0]).min())
        power = POTENTIAL_BITS - (math.ceil(math.log2(fine)) if fine > 2.0**-40 else 0)
        room = LARGEST.bit_length() - 4 - (math.ceil(math.log2(top)) if top > 2.0**-40 else 0)
        return max(min(power, room), -SOFT_BITS)

    def dense(self, dense: Dense) -> IntegerDense:
        bits = SOFT_BITS - 1 - self.ranges[dense.target.label].power
        bits = self.checked(dense.call, dense.activation, bits)
        soft = dense.activation.name in _SOFT
        self.keep(dense.target, bits, 2**SOFT_BITS if soft else 32767)
        bias = np.zeros(dense.product.rows.shape[1]) if dense.bias is None else dense.bias
        scale = _scale([dense.product], [bias])
        sums = self.sum_bits(dense.call, [(dense.product, dense.source)], bias, scale)
        out = TABLE_BITS if soft else bits
        return IntegerDense(
            dense,
            self.scaled(dense.product, dense.source, scale, sums),
            sums,
            scale,
            None if dense.bias is None else _rounded(bias / scale, sums),
            _rescale(dense.call, scale * 2.0 ** (out - sums)),
        )


def _scale(products: list[Product], others: list[np.ndarray]) -> np.ndarray:
    """Return the scale of each column: its largest weight is 127."""
    top = np.max([np.abs(product.rows).max(axis=0) for product in products], axis=0)
    top = np.asarray(top, "float64")
    for other in others:  # columns without any weight
        top = np.where(top > 0, top, np.abs(other))
    return np.where(top > 0, top, 1.0) / 127


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Return values in units of sums; what no sum can reach is just out of reach."""
    found = np.round(np.asarray(values, "float64") * 2.0**bits)
    return np.clip(found, -LARGEST - 1, LARGEST).astype("int64")


def _fraction(values: np.ndarray) -> np.ndarray:
    return np.round(values.astype("float64") * 2**15).astype("int64")


def _rescale(call: str, factor: np.ndarray) -> Rescale:
    """Return factors of 31 bits and the shift that they share."""
    largest = max(float(np.abs(factor).max()), 2.0**-31)
    right = min(math.floor(math.log2((2**31 - 1) / largest)), 62)
    if right < 1:
        raise NoIntegersError(f"the weights of {call} are too large for 32 bits")
    return Rescale(np.round(factor * 2.0**right).astype("int64"), right)


def sigmoid_table() -> np.ndarray:
    """Return sigmoid from 0 to 16 in 1 / 2^14, PARTS + 1 values; the rest follows by symmetry.

    A table that ended at -8 would leave 1 / 3000 to each key of a piano roll that is never played.
    """
    z = np.arange(PARTS + 1) * 2.0 ** (PART_BITS - TABLE_BITS)
    return np.round(2.0**SOFT_BITS / (1.0 + np.exp(-z))).astype("int64")


def exp_table() -> np.ndarray:
    """Return exp(-z) from 0 to 16 in 1 / 2^14, PARTS + 1 values."""
    z = np.arange(PARTS + 1) * 2.0 ** (PART_BITS - TABLE_BITS)
    return np.round(2.0**SOFT_BITS * np.exp(-z)).astype("int64")


def fixed(values: np.ndarray, bits: int) -> np.ndarray:
    """Return numbers as integers of 16 bits, halves away from zero."""
    scaled = np.asarray(values, "float64") * 2.0**bits
    return np.clip(np.trunc(scaled + np.copysign(0.5, scaled)), -32767, 32767).astype("int16")
