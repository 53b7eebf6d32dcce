"""Find the ranges of converters, and the statistics of normalisation, from data."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._strategy import step_by_step
from snukeras._types import Array, Nested, Tensor
from snukeras.network import observers
from snukeras.network.matrices import leaves, matrices
from snukeras.pcm.analog_network import AnalogNetwork
from snukeras.pcm.tiled_product import TiledProduct

# Numbers kept of each tile and call, for percentiles below 100.
_KEPT = 4096
# Share of spikes like those of the exact network below which `calibrate` warns.
_AGREEING = 0.5
# Gain below which a column is taken for dead.
_WEAKEST = 1e-3


def calibrate(
    net: AnalogNetwork,
    x: Nested,
    percentile: float = 100.0,
    batch_size: int = 32,
    floor: float = 0.01,
    output_share: float | dict[str, float] = 1.0,
) -> None:
    """Set the ranges of all converters of an analog network by what data give.

    The network computes the data exactly, without converters and noise, and each range becomes a
    percentile of the |inputs| or |currents| other than 0. Fixed ranges stay. On a network that a
    chip made, the currents are those of its devices.

    Args:
        net: the network of `snukeras.pcm.analog`, or of `Chip.model`.
        x: typical inputs, as for `predict`: an array, a list or dict of arrays, or batches of
            them, such as a tf.data.Dataset, whose labels are left out.
        percentile: above 0, at most 100; 100 is the largest value. Below it, up to 4,096 evenly
            spaced values of each tile and call are kept.
        batch_size: for arrays.
        floor: smallest range, as a share of the largest of the matrix, in (0, 1]. A tile that sees
            nothing but 0 gets the largest, or 1 if no tile of the matrix sees anything.
        output_share: the ranges of output converters, as shares of what the percentile gives: a
            number above 0, at most 1, or a dict by name of the matrix (`net.products()` has the
            names), 1 for the others. With few bits, a range below the largest currents is better
            where large ones all mean the same, as before a sigmoid, or where drift is going to
            halve them.

    Raises:
        TypeError, ValueError: another network, no data, NaN or infinity in data or products, a
            percentile or floor outside of its range, a name that is no matrix on tiles.

    Warns:
        UserWarning: on the first batch, less than half of a layer's spikes are those of the exact
            network: errors of early layers grow in deep spiking networks (see
            `spike_agreement`).
    """
    if not isinstance(net, AnalogNetwork):
        raise TypeError(
            "`net` must be an analog network, such as snukeras.pcm.analog(model). "
            f"Received: {type(net).__name__}"
        )
    percentile = _arguments.number("percentile", percentile, above=0.0, maximum=100.0)
    floor = _arguments.number("floor", floor, above=0.0, maximum=1.0)
    shares = _shares(net, output_share)
    watching = [_Observed(tiles, percentile) for tiles in net.tiles]
    with _watching(net, watching):
        first = _run(net, x, batch_size)
    for observed in watching:
        observed.assign(floor, shares[observed.tiles.matrix_name])
    net.check_calibrated()
    _warn_of_spikes(net, first)


def _shares(net: AnalogNetwork, given: float | dict[str, float]) -> dict[str, float]:
    """Return the share of the output ranges of each matrix, by name."""
    found = dict.fromkeys(net.products(), 1.0)
    for name, share in (given if isinstance(given, dict) else dict.fromkeys(found, given)).items():
        _arguments.choice("output_share", name, tuple(found))
        found[name] = _arguments.number("output_share", share, above=0.0, maximum=1.0)
    return found


def spike_agreement(net: AnalogNetwork, x: Nested, batch_size: int = 32) -> dict[str, float]:
    """Return how well the spikes of a network on tiles agree with those of exact products.

    Args:
        net: a calibrated network of `snukeras.pcm.analog`, or of `Chip.model`.
        x: inputs, as for `calibrate`.
        batch_size: for arrays.

    Returns:
        By name of the spiking layers, in their order, the spikes that both have, as a share of
        those that either has; 1 where neither has any.

    Raises:
        TypeError, ValueError: another network, one that is not calibrated, no data, NaN or
            infinity.
    """
    if not isinstance(net, AnalogNetwork):
        raise TypeError(
            "`net` must be an analog network, such as snukeras.pcm.analog(model). "
            f"Received: {type(net).__name__}"
        )
    units = observers.units_of(net, spiking_only=True)
    both, either = dict.fromkeys(units, 0), dict.fromkeys(units, 0)
    for batch in batches(x, batch_size):
        exact, spikes = (_spikes(net, batch, units, quiet) for quiet in (True, False))
        for name in units:
            both[name] += int(np.count_nonzero(exact[name] & spikes[name]))
            either[name] += int(np.count_nonzero(exact[name] | spikes[name]))
    return {name: both[name] / either[name] if either[name] else 1.0 for name in units}


class _Spikes(observers.Observer):
    """Keeps the spikes of the calls of layers."""

    def __init__(self) -> None:
        self.kept: dict[int, list[np.ndarray]] = {}

    def observe(self, run: observers.Run) -> None:
        spikes = ops.convert_to_numpy(ops.cast(run.spikes, "float32")) > 0
        self.kept.setdefault(id(run.layer), []).append(spikes.ravel())


def _spikes(
    net: AnalogNetwork, batch: Nested, units: dict[str, keras.Layer], exact: bool
) -> dict[str, np.ndarray]:
    """Return the spikes of each layer on a batch, on tiles or of exact products."""
    seen = _Spikes()
    with contextlib.ExitStack() as stack:
        if exact:
            stack.enter_context(_watching(net, [_Nothing()] * len(net.tiles)))
        stack.enter_context(observers.watching(seen, units.values()))
        net(batch, training=False)
    none = np.zeros(0, bool)
    return {name: np.concatenate(seen.kept.get(id(layer), [none])) for name, layer in units.items()}


class _Nothing:
    """Watches, so that products are exact, and takes no note."""

    def add(self, block: int, x: Tensor, current: Tensor) -> None:
        pass


def _warn_of_spikes(net: AnalogNetwork, batch: Nested) -> None:
    """Warn of layers whose spikes are mostly others than those of the exact network."""
    if not observers.units_of(net, spiking_only=True):
        return
    agreement = spike_agreement(net, iter([(batch,)]))
    poor = {name: share for name, share in agreement.items() if share < _AGREEING}
    if poor:
        worst = min(poor, key=lambda name: poor[name])
        warnings.warn(
            f"On these tiles only {poor[worst]:.0%} of the spikes of {worst!r} are those of the "
            f"exact network, and less than {_AGREEING:.0%} in {len(poor)} of {len(agreement)} "
            "layers. Compare the metric, not spikes alone; finer converters, another percentile, "
            "or training on tiles help (snukeras.pcm.spike_agreement tells each layer).",
            stacklevel=3,
        )


def recalibrate_normalization(net: keras.Model, x: Nested, batch_size: int = 32) -> None:
    """Set the means and variances of batch normalisation by what data give (AdaBS, Joshi 2020).

    Noise and drift of devices shift the statistics of activations; those of a model on a chip are
    measured anew by this. Layers are taken in their order, each with those before it done, and
    everything else works as in inference.

    Args:
        net: a Keras model, such as that of `Chip.model`.
        x: typical inputs, as for `calibrate`.
        batch_size: for arrays.

    Raises:
        ValueError: no BatchNormalization in the model, no data, NaN or infinity in data.
    """
    layers = [
        layer for _, layer in leaves(net) if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not layers:
        raise ValueError(
            f"`net` must have a BatchNormalization layer. Received: {net.name!r}, which has none."
        )
    for layer in layers:
        seen = _Moments(layer)
        layer.call = seen
        try:
            _run(net, x, batch_size)
        finally:
            del layer.call
        seen.assign()


def calibrate_readout(
    net: AnalogNetwork, targets: list[np.ndarray], x: Nested, vectors: int, batch_size: int
) -> None:
    """Set factors and shifts of all columns of a chip's network; see `Chip.calibrate_readout`.

    Args:
        net: a network of `Chip.model`.
        targets: the matrices that were to be programmed, in the order of its tiles.
        x: typical inputs.
        vectors: how many vectors of each matrix are compared, at most.
        batch_size: for arrays.
    """
    seen = [_Inputs(tiles, vectors) for tiles in net.tiles]
    with _watching(net, seen):
        _run(net, x, batch_size)
    variables = {matrix.name: matrix.variable for matrix in matrices(net)}
    for tiles, kept, target in zip(net.tiles, seen, targets, strict=True):
        weight = ops.convert_to_tensor(variables[tiles.matrix_name])
        share = ops.convert_to_tensor(target / ops.convert_to_numpy(tiles.unit))
        factors = np.ones((len(tiles.blocks), tiles.shape[1]))
        shifts = np.zeros_like(factors)
        for number, parts in enumerate(kept.blocks):
            inputs = ops.convert_to_tensor(np.concatenate(parts))
            got, r = tiles.read_out(number, inputs, weight)
            wanted = tiles.currents(inputs / r, share[tiles.blocks[number]])
            columns = (
                ops.convert_to_numpy(part).reshape(-1, target.shape[1]) for part in (got, wanted)
            )
            factors[number], shifts[number] = _regressed(*columns)
        tiles.set_held({"factor": factors, "shift": shifts})


def _regressed(got: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return factor and shift of each column that turn what was got into what was wanted.

    The errors are in what was got, so that is what is regressed, on what was wanted.
    """
    wanted, got = wanted.astype("float64"), got.astype("float64")
    centred = wanted - wanted.mean(axis=0)
    spread = np.square(centred).sum(axis=0)
    gain = (centred * got).sum(axis=0) / np.where(spread > 0, spread, 1.0)
    # A column of zeros, or one that does not react, tells no gain.
    gain = np.where(gain > _WEAKEST, gain, 1.0)
    offset = got.mean(axis=0) - gain * wanted.mean(axis=0)
    return 1.0 / gain, -offset / gain


class _Inputs:
    """Vectors that drive the blocks of rows of one matrix, up to a number."""

    def __init__(self, tiles: TiledProduct, vectors: int) -> None:
        self.tiles, self.vectors = tiles, vectors
        self.blocks: list[list[np.ndarray]] = [[] for _ in tiles.blocks]

    def add(self, block: int, x: Tensor, current: Tensor) -> None:
        """Keep evenly spaced vectors of those that drive a block of rows."""
        left = self.vectors - sum(len(part) for part in self.blocks[block])
        if left > 0:
            values = ops.convert_to_numpy(x)
            # Those of groups, which drive the same rows in turn, belong together.
            rank = 1 if self.tiles.groups == 1 else 2
            flat = values.reshape(-1, *values.shape[-rank:])
            self.blocks[block].append(flat[:: -(-len(flat) // left)])


@contextlib.contextmanager
def _watching(
    net: AnalogNetwork, watchers: Sequence["_Observed | _Inputs | _Nothing"]
) -> Iterator[None]:
    """Show watchers what reaches the converters of each matrix, in exact products."""
    try:
        for tiles, watcher in zip(net.tiles, watchers, strict=True):
            tiles.observer = watcher.add
        with step_by_step():
            yield
    finally:
        for tiles in net.tiles:
            tiles.observer = None


def _run(net: keras.Model, x: Nested, batch_size: int) -> Nested:
    """Run a network eagerly on data, and return the first batch.

    Raises:
        ValueError: no data, or NaN or infinity in them.
    """
    count, first = 0, None
    for batch in batches(x, batch_size):
        net(batch, training=False)
        first = batch if count == 0 else first
        count += 1
    if not count:
        raise ValueError("`x` must hold at least one sample. Received: none.")
    return first


def batches(x: Nested, batch_size: int) -> Iterator[Nested]:
    """Yield the inputs of a model batch by batch, checked to be finite.

    Args:
        x: an array, a list or dict of arrays, or batches (a tf.data.Dataset, a generator), of which
            only the inputs are taken.
        batch_size: for arrays.

    Raises:
        ValueError: neither, a batch size below 1, NaN or infinity.
    """
    batch_size = _arguments.whole("batch_size", batch_size)
    arrays = isinstance(x, list | tuple | dict) or hasattr(x, "shape")
    if not arrays and (isinstance(x, str) or not hasattr(x, "__iter__")):
        raise ValueError(f"`x` must be arrays, or batches of them. Received: {x!r}")
    if not arrays:
        for batch in x:
            inputs, *_ = keras.utils.unpack_x_y_sample_weight(batch)
            yield _checked(inputs)
        return
    whole = _checked(x)
    sizes = {len(part) for part in keras.tree.flatten(whole)}
    if len(sizes) > 1:
        raise ValueError(
            f"`x` must hold arrays of one number of samples. Received: {sorted(sizes)}"
        )
    for start in range(0, sizes.pop(), batch_size):
        part = slice(start, start + batch_size)
        yield keras.tree.map_structure(lambda array, part=part: array[part], whole)


def _checked(inputs: Nested) -> Nested:
    """Return inputs as arrays."""

    def checked(part: Array) -> Array:
        array = part if hasattr(part, "shape") else np.asarray(part)
        values = ops.convert_to_numpy(array)
        if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise ValueError(
                f"`x` must be finite. Received: {bad} of {values.size} values are NaN or infinite."
            )
        return array

    if isinstance(inputs, list) and inputs and not hasattr(inputs[0], "shape"):
        inputs = np.asarray(inputs)
    return keras.tree.map_structure(checked, inputs)


class _Values:
    """The sizes of numbers that one converter sees.

    Args:
        percentile: which of them is wanted.
    """

    def __init__(self, percentile: float) -> None:
        self.percentile, self.largest = percentile, 0.0
        self.kept: list[np.ndarray] = []

    def add(self, values: np.ndarray, name: str) -> None:
        sizes = np.abs(values).ravel()
        top = float(sizes.max(initial=0.0))
        if not np.isfinite(top):
            raise ValueError(
                f"The products of {name} must be finite. Received: NaN or infinity; look for a "
                "diverged training run."
            )
        self.largest = max(self.largest, top)
        if self.percentile < 100.0:
            sizes = sizes[sizes > 0]
            self.kept.append(sizes[:: -(-len(sizes) // _KEPT)] if len(sizes) else sizes)

    def range(self) -> float:
        """Return the percentile of the numbers other than 0; 0 if there are none."""
        if self.percentile == 100.0 or not self.largest:
            return self.largest
        return float(np.percentile(np.concatenate(self.kept), self.percentile))


class _Observed:
    """What reaches the converters of one matrix."""

    def __init__(self, tiles: TiledProduct, percentile: float) -> None:
        self.tiles = tiles
        blocks = len(tiles.blocks)
        self.inputs = [_Values(percentile) for _ in range(blocks)]
        self.outputs = [[_Values(percentile) for _ in range(tiles.across)] for _ in range(blocks)]

    def add(self, block: int, x: Tensor, current: Tensor) -> None:
        """Take note of inputs and currents of a block of rows."""
        tiles = self.tiles
        if tiles.input_range is not None:
            self.inputs[block].add(ops.convert_to_numpy(x), tiles.matrix_name)
        if tiles.output_range is not None:
            current = ops.convert_to_numpy(current)
            for number, values in enumerate(self.outputs[block]):
                start = number * tiles.tile.columns
                values.add(current[..., start : start + tiles.tile.columns], tiles.matrix_name)

    def assign(self, floor: float, share: float) -> None:
        """Set the ranges."""
        tiles, converter = self.tiles, self.tiles.tile.input
        inputs = np.ones(len(tiles.blocks))
        if tiles.input_range is not None:
            inputs = _ranges([values.range() for values in self.inputs], floor)
            if converter is not None and converter.per == "layer":
                inputs = np.full_like(inputs, inputs.max())
            tiles.input_range.assign(inputs[: tiles.input_range.shape[0]])
        elif converter is not None and not isinstance(converter.range, str):
            inputs = np.full(len(tiles.blocks), converter.range)
        if tiles.output_range is not None:
            found = np.array([[values.range() for values in row] for row in self.outputs])
            found = _ranges(found / inputs[:, None], floor)
            if tiles.output_range.shape == (1, 1):
                found = found.max(keepdims=True)
            tiles.output_range.assign(found * share)


def _ranges(values: Array, floor: float) -> np.ndarray:
    """Return ranges that hold the values, none of them 0."""
    values = np.asarray(values, dtype="float64")
    largest = values.max() or 1.0
    return np.where(values > 0, np.maximum(values, floor * largest), largest)


class _Moments:
    """Stands in for the call of a BatchNormalization, and sums up what it is given."""

    def __init__(self, layer: keras.layers.BatchNormalization) -> None:
        self.layer, self.own = layer, type(layer).call
        self.count, self.total, self.squares = 0.0, 0.0, 0.0

    def __call__(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        values = ops.convert_to_numpy(ops.cast(inputs, "float32")).astype("float64")
        values = np.moveaxis(values, self.layer.axis, -1)
        if mask is not None:
            values = values[ops.convert_to_numpy(mask).astype(bool)]
        values = values.reshape(-1, values.shape[-1])
        self.count += len(values)
        self.total = self.total + values.sum(axis=0)
        self.squares = self.squares + np.square(values).sum(axis=0)
        return self.own(self.layer, inputs, training=False, mask=mask)

    def assign(self) -> None:
        """Set the layer's mean and variance."""
        mean = self.total / self.count
        self.layer.moving_mean.assign(mean)
        self.layer.moving_variance.assign(np.maximum(self.squares / self.count - mean**2, 0.0))
