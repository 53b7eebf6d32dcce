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
    Plan,
    Product,
    Tensor,
    Units,
)

# Sums and potentials stay within this.
LARGEST = 2**30
# Fractional bits: of sums at most, of outputs of sigmoid and the like, of what goes into them.
SUM_BITS, SOFT_BITS, TABLE_BITS = 12, 14, 11
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
class IntegerCoding:
    """Rate coding; `thresholds` count in the bits of the input."""

    of: Coding
    thresholds: np.ndarray


IntegerOperation = IntegerUnits | IntegerDense | IntegerActivate | IntegerMean | IntegerCoding


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
        ranges: Of inputs and of outputs of Dense layers, by label.

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

    def operation(self, operation: Units | Dense | Activate | Mean | Coding) -> IntegerOperation:
        match operation:
            case Units():
                return self.units(operation)
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
            case Coding():
                self.keep(operation.target, 0, 1)
                bits = self.bits[operation.source.label]
                found = operation.thresholds.astype("float64") / operation.probability
                thresholds = np.minimum(np.floor(found * 2.0**bits), 32767).astype("int64")
                return IntegerCoding(operation, thresholds)

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
            np.round(units.decay.astype("float64") * 2**15).astype("int64"),
            None if units.bias is None else _rounded(bias / scale, bits),
            _rounded(units.threshold / scale, bits),
            None if units.spiking else _rescale(units.call, scale * 2.0 ** (TABLE_BITS - bits)),
        )

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


def _rescale(call: str, factor: np.ndarray) -> Rescale:
    """Return factors of 31 bits and the shift that they share."""
    right = min(math.floor(math.log2((2**31 - 1) / float(factor.max()))), 62)
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
