"""The products of one matrix on tiles: converters, noise of each product, partial sums."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from snukeras._random import normal_like
from snukeras._strategy import check_draws_are_possible, known
from snukeras._types import Array, Config, Initializer, Tensor
from snukeras.network.matrices import Unrolling
from snukeras.pcm.converters import converted
from snukeras.pcm.devices import InferencePCM
from snukeras.pcm.modifiers import WeightModifier
from snukeras.pcm.pairs import DifferentialPair
from snukeras.pcm.tiles import InputConverter, OutputConverter, Tile
from snukeras.pcm.wires import with_ir_drop

#: Learned ranges do not fall below this.
_SMALLEST = 1e-6

#: Takes what reaches the converters of a row block: its number, inputs, and currents of columns.
Observer = Callable[[int, Tensor, Tensor], None]


@keras.saving.register_keras_serializable(package="snukeras")
class TiledProduct(keras.layers.Layer):
    """Multiplies vectors by one matrix of a network as tiles do it.

    For each block of at most `tile.rows` rows, with the range r of its input converter and u the
    weight that the largest conductance of a column stands for, the largest |weight| as a rule:

        v = converted(x / r)                              the voltages, in [-1, 1]
        i = v clip(W / u) + N(0, v^2 Var(W / u) + noise^2)    the currents, fresh noise each time
        i = (1 + gain) i / (1 + k |i| / R) + offset R     the errors of the column
        y = (R converted(i / R) factor + shift) r u s     range R of the output converter

    s is the output scale of the column, 1 without. The blocks' y are added digitally. Gradients
    pass straight through the rounding; they do not depend on the noise, and are 0 where a converter
    clips.

    Var is that of the read noise of the devices at the reference reading, if there is a `device`.
    On a chip (`programmed`) it, u, the factors and the shifts are variables that the chip sets, and
    the weights are what its devices hold.

    Args:
        shape: (rows, columns) of the matrix.
        unrolling: how the weight lies on tiles.
        tile: the kind of tile.
        device: InferencePCM or None: no read noise.
        pair: DifferentialPair that holds a weight: its range, what shares it, its levels; default
            that of the device, or 25 uS, with a range for each column.
        modifiers: what changes the weights of training steps.
        output_scales: whether each column has a digital factor that is trained.
        learned_clip: whether u is trained: weights beyond it are clipped.
        programmed: whether a chip sets what its devices hold.
        seed: int or None, of the noise and of the columns' errors.

    Attributes:
        input_range: ranges of the input converters that are found from data: (row blocks,), or (1,)
            for a layer; NaN before `calibrate`. None where there are none.
        output_range: likewise for the output converters: (row blocks, tiles beside each other) in
            currents, or (1, 1).
    """

    def __init__(
        self,
        shape: tuple[int, int],
        unrolling: Unrolling,
        tile: Tile,
        device: InferencePCM | None = None,
        programmed: bool = False,
        seed: int | None = None,
        pair: DifferentialPair | None = None,
        modifiers: Sequence[WeightModifier] = (),
        output_scales: bool = False,
        learned_clip: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype="float32")
        self.shape, self.unrolling, self.tile = shape, unrolling, tile
        self.device, self.programmed, self.seed = device, programmed, seed
        rows, columns = shape
        self.blocks = [
            slice(start, min(start + tile.rows, rows)) for start in range(0, rows, tile.rows)
        ]
        self.across = -(-columns // tile.columns)
        self._tile_of_column = np.arange(columns) // tile.columns
        g_max = 25.0 if device is None else device.g_max
        self.pair = DifferentialPair(g_max, scale="column") if pair is None else pair
        self.modifiers = tuple(modifiers)
        #: Whether a training step runs, which modifiers are for.
        self.in_training = False
        self.generator = keras.random.SeedGenerator(seed)
        self.input_range = self._range("input_range", tile.input, (len(self.blocks),))
        self.output_range = self._range(
            "output_range", tile.output, (len(self.blocks), self.across)
        )
        self.scale: keras.Variable | None = None
        if output_scales:
            self.scale = self.add_weight(
                shape=(columns,), name="scale", initializer="ones", autocast=False
            )
        self.limit: keras.Variable | None = None
        if learned_clip:
            self.limit = self.add_weight(
                shape=(columns,),
                name="limit",
                initializer="ones",
                constraint="non_neg",
                autocast=False,
            )
        self._add_column_errors(columns)
        self.variance = self.unit = self.factor = self.shift = None
        if programmed:
            self.variance = self._held("variance", shape, "zeros")
            self.unit = self._held("unit", (columns,), "ones")
            self.factor = self._held("factor", (len(self.blocks), columns), "ones")
            self.shift = self._held("shift", (len(self.blocks), columns), "zeros")
        #: Name of the matrix, as `snukeras.network.matrices` gives it.
        self.matrix_name = self.name
        #: How many products serve all columns once, as the layer has it.
        self.groups = unrolling.groups
        #: Set while `calibrate` watches; converters and noise are then left out.
        self.observer: Observer | None = None
        #: Whether products are without noise.
        self.quiet = False
        #: Takes what converters give: row block, voltages, currents, and the range of inputs.
        self.recorder: Callable[[int, Tensor, Tensor, Tensor], None] | None = None
        self.built = True

    def _range(
        self, name: str, converter: InputConverter | OutputConverter | None, shape: tuple
    ) -> keras.Variable | None:
        if converter is None or converter.range not in ("calibrated", "learned"):
            return None
        return self.add_weight(
            shape=shape if converter.per == "tile" else (1,) * len(shape),
            name=name,
            initializer=keras.initializers.Constant(math.nan),
            trainable=converter.range == "learned",
            constraint="non_neg" if converter.range == "learned" else None,
            autocast=False,
        )

    def _held(self, name: str, shape: tuple[int, ...], initializer: Initializer) -> keras.Variable:
        return self.add_weight(
            shape=shape, name=name, initializer=initializer, trainable=False, autocast=False
        )

    def _add_column_errors(self, columns: int) -> None:
        self.gain = self.offset = None
        output = self.tile.output
        shape = (len(self.blocks), columns)
        if output is not None and output.gain:
            self.gain = self._held("gain", shape, "zeros")
        if output is not None and output.offset:
            self.offset = self._held("offset", shape, "zeros")
        self.draw_column_errors(self.seed)

    def draw_column_errors(self, seed: int | None) -> None:
        """Draw the errors of the converters of each column anew, as another chip has them."""
        random = np.random.default_rng(None if seed is None else [seed, 0x0FF5E7])
        for variable, spread in ((self.gain, "gain"), (self.offset, "offset")):
            if variable is not None:
                drawn = random.normal(0.0, getattr(self.tile.output, spread), variable.shape)
                variable.assign(drawn)

    def reset_limit(self, weight: Tensor) -> None:
        """Let learned limits be the largest |weight| of their columns."""
        if self.limit is not None:
            largest = self.pair.max_weight(ops.cast(self._matrix(weight), "float32"))
            self.limit.assign(ops.broadcast_to(largest, (self.shape[1],)))

    def held(self, weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return a weight as tiles hold it, shares (rows, columns) of the units (columns,).

        Output scales are in the units.
        """
        matrix = ops.cast(self._matrix(weight), "float32")
        unit = self._units(matrix)
        share, *_ = self._effective(matrix, unit)
        if self.scale is not None:
            unit = unit * self.scale
        return ops.convert_to_numpy(share), ops.convert_to_numpy(unit)

    def output_ranges(self, block: int) -> np.ndarray:
        """Return the range of the output converter of each column of a row block, (columns,)."""
        assert self.tile.output is not None
        found = ops.convert_to_numpy(self._output_range(block, self.tile.output, 1))
        return np.broadcast_to(found, (self.shape[1],))

    def set_held(self, values: dict[str, np.ndarray]) -> None:
        """Set the variables of a chip: of variance, unit, factor and shift those that are given."""
        for name, array in values.items():
            getattr(self, name).assign(array)

    def restart(self, state: np.ndarray) -> None:
        """Start the noise, and the errors of the columns, from two integers."""
        self.generator.state.assign(np.array(state, "uint32"))
        self.draw_column_errors(int(state[0]))

    @property
    def uncalibrated(self) -> bool:
        """Whether a range is still to be found from data."""
        return any(np.isnan(ops.convert_to_numpy(v)).any() for v in self.ranges if known(v))

    @property
    def ranges(self) -> list[keras.Variable]:
        """The ranges of converters that are found from data, or learned."""
        return [v for v in (self.input_range, self.output_range) if v is not None]

    @property
    def learns_ranges(self) -> bool:
        """Whether training changes a range."""
        return any(v is not None and v.trainable for v in (self.input_range, self.output_range))

    @property
    def ideal(self) -> bool:
        """Whether the product is that of the matrix."""
        plain = self.pair.clip is None and self.pair.levels is None and not self.modifiers
        plain = plain and self.scale is None and self.limit is None
        return plain and self.tile.ideal and self.device is None and not self.programmed

    @property
    def draws(self) -> bool:
        """Whether each product draws noise of its own, also outside of training."""
        noisy = self.tile.output is not None and self.tile.output.noise > 0
        return not self.quiet and (noisy or self.device is not None or self.programmed)

    def multiply(self, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
        """Return the product; see `snukeras.network.products.Product`."""
        self.groups = groups
        matrix = self._matrix(weight)
        if self.ideal and self.observer is None:
            return self._flat(_times(x, ops.cast(matrix, x.dtype), groups), groups)
        matrix = ops.cast(matrix, "float32")
        unit = self._units(matrix)
        if self.observer is not None:
            return self._observed(x, matrix, unit, groups)
        matrix, variance, drifted = self._effective(matrix, unit)
        if drifted is not None:
            unit = unit * drifted
        largest = self._largest_of_layer(x)
        total: Tensor = 0.0
        for number, rows in enumerate(self.blocks):
            noisy = None if variance is None else variance[rows]
            part, r = self._block(number, x[..., rows], matrix[rows], noisy, largest, groups)
            part = self._corrected(number, part, unit, groups)
            total = total + (part if r is None else part * r)
        return self._flat(ops.cast(total, x.dtype), groups)

    def call(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.multiply(x, weight)

    def _block(
        self,
        number: int,
        x: Tensor,
        matrix: Tensor,
        variance: Tensor | None,
        largest: Tensor | None,
        groups: int,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the currents of a row block as converted, and the range of its inputs."""
        voltage, r = self._voltage(number, x, largest)
        current = ops.cast(_times(voltage, ops.cast(matrix, x.dtype), groups), "float32")
        output = self.tile.output
        noise = 0.0 if output is None or self.quiet else output.noise
        variance = None if self.quiet else variance
        if variance is not None:
            squares = ops.stop_gradient(ops.square(voltage))
            spread = _times(squares, ops.cast(variance, x.dtype), groups)
            noise = ops.sqrt(ops.cast(spread, "float32") + noise**2)
        if variance is not None or noise:
            check_draws_are_possible(self.matrix_name, ("onnx", "openvino", "litert"))
            drawn = normal_like(current, self.generator)
            current = current + ops.stop_gradient(noise * drawn)
        if output is not None:
            current = self._digital(number, current, output, groups)
        if self.recorder is not None:
            self.recorder(number, voltage, current, ops.ones(()) if r is None else r)
        return current, r

    def _voltage(
        self, number: int, x: Tensor, largest: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return converted inputs of a row block as shares of the range, and the range."""
        converter = self.tile.input
        if converter is None:
            return x, None
        v = ops.cast(x, "float32")
        r: Tensor
        if self.input_range is not None:
            r = _positive(self.input_range[number if converter.per == "tile" else 0])
        elif converter.range == "vector":
            r = _largest(v) if largest is None else largest
        else:
            r = converter.range
        return ops.cast(converted(v / r, converter.bits), x.dtype), r

    def _largest_of_layer(self, x: Tensor) -> Tensor | None:
        """Return the largest input of each vector, where all blocks of rows share it."""
        converter = self.tile.input
        if converter is None or converter.range != "vector" or converter.per == "tile":
            return None
        return _largest(ops.cast(x, "float32"))

    def _digital(
        self, number: int, current: Tensor, output: OutputConverter, groups: int
    ) -> Tensor:
        r = self._output_range(number, output, groups)
        if output.nonlinearity:
            current = current / (1.0 + output.nonlinearity * ops.abs(current) / r)
        if self.gain is not None:
            current = current * (1.0 + self._columns(self.gain[number], groups))
        if self.offset is not None:
            current = current + self._columns(self.offset[number], groups) * r
        return current if r is None else r * converted(current / r, output.bits)

    def _output_range(self, number: int, output: OutputConverter, groups: int) -> Tensor:
        """Return the range for each column of a row block, or one for all; None: no range."""
        if self.output_range is None:
            return output.range
        if self.output_range.shape[-1] == 1:
            return _positive(self.output_range[number if output.per == "tile" else 0, 0])
        r = _positive(ops.take(self.output_range[number], self._tile_of_column, axis=0))
        return self._columns(r, groups)

    def _corrected(self, number: int, current: Tensor, unit: Tensor, groups: int) -> Tensor:
        """Turn digital currents of a row block into products with weights."""
        if self.scale is not None:
            unit = unit * self.scale
        if self.factor is None or self.shift is None:
            return current * self._columns(unit, groups)
        factor, shift = (self._columns(part[number], groups) for part in (self.factor, self.shift))
        return (current * factor + shift) * self._columns(unit, groups)

    def currents(self, v: Tensor, share: Tensor) -> Tensor:
        """Return exact currents (..., columns) of voltages and weights as shares of their units."""
        return self._flat(_times(v, share, self.groups), self.groups)

    def read_out(self, number: int, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the currents of a row block, converted: (..., columns), and the inputs' range.

        Args:
            number: of the row block.
            x: (..., rows of the block), or (..., groups, rows) if there are groups.
            weight: in its own shape.
        """
        matrix = ops.cast(self._matrix(weight), "float32")
        matrix, variance, _ = self._effective(matrix, self._units(matrix))
        rows = self.blocks[number]
        noisy = None if variance is None else variance[rows]
        current, r = self._block(number, x, matrix[rows], noisy, None, self.groups)
        return self._flat(current, self.groups), ops.ones(()) if r is None else r

    def _units(self, matrix: Tensor) -> Tensor:
        """Return the weight of each column that the largest conductance holds."""
        if self.unit is not None:
            return ops.convert_to_tensor(self.unit)
        if self.limit is not None:
            return _positive(self.limit)
        unit = ops.stop_gradient(self.pair.max_weight(matrix))
        return ops.broadcast_to(unit, (self.shape[1],))

    def _effective(
        self, matrix: Tensor, unit: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return weights as shares of their unit, as the wires let them act, and their variance.

        The third are factors (columns,) that correct the drift of training steps, or None.
        """
        share = matrix / unit
        if self.programmed:
            return share, self.variance / ops.square(unit), None
        share, factor = self._held_share(share), None
        for modifier in self.modifiers if self.in_training else ():
            share, own = modifier.in_front(share, self.generator, self.pair, self.device)
            if own is not None:
                factor = own[0] if factor is None else factor * own[0]
        if self.device is None and not self.tile.wire_resistance:
            return share, None, factor
        # One device of each pair rests.
        span, low = self.pair.span, self.pair.g_min
        g = ops.stack([ops.relu(share), ops.relu(-share)]) * span + low
        held = self._behind_wires(g) if self.tile.wire_resistance else g
        variance = None
        if self.device is not None:
            std = self.device.read_noise_std(ops.stop_gradient(g)) * self.device.read_noise
            variance = ops.sum(ops.square(std * ops.stop_gradient(held)), axis=0) / span**2
        return (held[0] - held[1]) / span, variance, factor

    def _held_share(self, share: Tensor) -> Tensor:
        """Return weights, as shares of their unit, that pairs can hold: clipped and rounded."""
        if self.pair.clip is not None or self.limit is not None:
            share = ops.clip(share, -1.0, 1.0)
        if self.pair.levels is not None:
            steps = self.pair.levels - 1
            share = share + ops.stop_gradient(ops.round(share * steps) / steps - share)
        return share

    def _behind_wires(self, g: Tensor) -> Tensor:
        """Return the conductances that all tiles seem to have."""
        blocks = []
        for rows in self.blocks:
            parts = [
                with_ir_drop(g[:, rows, start : start + self.tile.columns], resistance)
                for resistance in (self.tile.wire_resistance,)
                for start in range(0, self.shape[1], self.tile.columns)
            ]
            blocks.append(ops.concatenate(parts, axis=-1))
        return ops.concatenate(blocks, axis=-2)

    def _observed(self, x: Tensor, matrix: Tensor, unit: Tensor, groups: int) -> Tensor:
        """Return the exact product, and show the observer what reaches the converters."""
        share = matrix / unit
        share = share if self.programmed else self._held_share(share)
        v = ops.cast(x, "float32")
        total: Tensor = 0.0
        converter, largest = self.tile.input, self._largest_of_layer(x)
        for number, rows in enumerate(self.blocks):
            part = v[..., rows]
            current = seen = _times(part, share[rows], groups)
            if converter is not None and converter.range == "vector":
                seen = current / (_largest(part) if largest is None else largest)
            assert self.observer is not None
            self.observer(number, part, self._flat(seen, groups))
            total = total + self._corrected(number, current, unit, groups)
        return self._flat(ops.cast(total, x.dtype), groups)

    def _matrix(self, weight: Tensor) -> Tensor:
        """Return a weight as a matrix (rows, columns)."""
        weight = ops.convert_to_tensor(weight)
        rows, columns = self.unrolling.axes(len(weight.shape))
        if (*rows, *columns) != tuple(range(len(weight.shape))):
            weight = ops.transpose(weight, (*rows, *columns))
        return ops.reshape(weight, self.shape)

    def _columns(self, values: Tensor, groups: int) -> Tensor:
        """Lay what each column has as the products of groups lie."""
        return values if groups == 1 else ops.reshape(values, (groups, -1))

    def _flat(self, y: Tensor, groups: int) -> Tensor:
        """Lay the columns of all groups side by side."""
        return y if groups == 1 else ops.reshape(y, (*ops.shape(y)[:-2], self.shape[1]))

    def get_config(self) -> Config:
        return {
            "name": self.name,
            "shape": list(self.shape),
            "unrolling": dataclasses.asdict(self.unrolling),
            "tile": self.tile.get_config(),
            "device": None
            if self.device is None
            else keras.saving.serialize_keras_object(self.device),
            "programmed": self.programmed,
            "seed": self.seed,
            "pair": self.pair.get_config(),
            "modifiers": [modifier.get_config() for modifier in self.modifiers],
            "output_scales": self.scale is not None,
            "learned_clip": self.limit is not None,
        }

    @classmethod
    def from_config(cls, config: Config) -> "TiledProduct":
        given = dict(config)
        unrolling: Config = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given["unrolling"].items()
        }
        return cls(
            **{
                **given,
                "shape": tuple(given["shape"]),
                "unrolling": Unrolling(**unrolling),
                "tile": Tile.from_config(given["tile"]),
                "device": keras.saving.deserialize_keras_object(given["device"]),
                "pair": DifferentialPair.from_config(given["pair"]),
                "modifiers": [WeightModifier.from_config(part) for part in given["modifiers"]],
            }
        )


def _times(x: Array, matrix: Tensor, groups: int) -> Tensor:
    """Return x (..., rows) times a matrix; of groups, (..., groups, rows), each its columns."""
    if groups == 1:
        return ops.matmul(x, matrix)
    parts = ops.reshape(matrix, (matrix.shape[0], groups, -1))
    return ops.einsum("...gr,rgc->...gc", x, parts)


def _largest(x: Tensor) -> Tensor:
    """Return the largest |value| of each vector, never 0."""
    top = ops.max(ops.abs(x), axis=-1, keepdims=True)
    return ops.stop_gradient(ops.maximum(top, 1e-30))


def _positive(learned: Tensor) -> Tensor:
    return ops.maximum(learned, _SMALLEST)
