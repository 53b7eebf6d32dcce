"""Start units where they spike: by the statistics of their inputs, or by data."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._types import Config, Dtype, Nested, PerUnit, Tensor
from snukeras.network import observers

# Calibration tries scales of a kernel up to this power of two, each way.
_WIDEST = 64.0
_BISECTIONS = 17
# A rate above which a unit says no more than one that never spikes.
_SATURATED = 0.95
# The units and steps by which a layer is simulated.
_UNITS = 1000
_STEPS = 40
# Times that a layer is scaled, and its silent and saturated units are mended.
_ROUNDS = 3


@keras.saving.register_keras_serializable(package="snukeras")
class FluctuationDriven(keras.initializers.Initializer):
    """Draw a kernel so that the membrane potentials of its units fluctuate up to the threshold.

    Weights are normal around zero. Their standard deviation is the one at which units spike at
    `rate` when their inputs are 0 or 1 by chance, 1 with the probability `input_rate` at each step
    (after Rossbroich, Gygax and Zenke, Neuromorphic Computing and Engineering 2022, whose formula
    ignores resets and the spread of the mean drive over the units, which both matter here). With
    n inputs at the rate p and a weight deviation of w, a unit's drive has the mean q w sqrt(n) p,
    with q normal over the units, and the deviation w sqrt(n p (1 - p)) over the steps; such units
    are simulated with their decay, g and reset, and w is searched for.

    With `input_rate` equal to `rate`, as it is by default, spikes neither die out nor take over in
    a stack of layers: the rates approach 0.25 to 0.35 from layer to layer, from rarer inputs too
    (above the target, since some units are busier than others, which the search leaves out).
    `snukeras.initializers.calibrate` sets the rates by data instead.

    Args:
        rate: Target rate of the units, spikes of a unit and step, in (0, 0.4).
        input_rate: Rate of the inputs, in (0, 1); None for `rate`.
        decay: The units' decay: a number or one per unit, in [0, 1].
        threshold: The units' threshold: a positive number or one per unit.
        rectified: Whether g keeps the membrane potential from falling below 0, as "relu" does.
        seed: Integer, `keras.random.SeedGenerator`, or None.
        share: What these weights are to add of the variance of that drive, in (0, 1]: 1 where they
            are the only ones, less for recurrent ones, whose units have other inputs too.

    Raises:
        ValueError: An argument is outside what is allowed.
    """

    def __init__(
        self,
        rate: float = 0.25,
        input_rate: float | None = None,
        decay: float | Sequence[float] = 0.8,
        threshold: float | Sequence[float] = 1.0,
        rectified: bool = True,
        seed: int | keras.random.SeedGenerator | Config | None = None,
        share: float = 1.0,
    ) -> None:
        self.rate = _arguments.number("rate", rate, above=0.0, below=0.4)
        self.input_rate = input_rate
        if input_rate is not None:
            self.input_rate = _arguments.number("input_rate", input_rate, above=0.0, below=1.0)
        self.decay = _numbers("decay", decay, "from 0 to 1", lambda d: (d >= 0) & (d <= 1))
        self.threshold = _numbers("threshold", threshold, "positive", lambda t: t > 0)
        self.rectified = bool(rectified)
        self.share = _arguments.number("share", share, above=0.0, maximum=1.0)
        if isinstance(seed, dict):
            seed = keras.saving.deserialize_keras_object(seed)
        self._seed = seed
        self.seed = seed if seed is not None else keras.random.SeedGenerator()

    def deviation(self, inputs: int) -> np.ndarray:
        """Return the standard deviation of the weights of units with a number of inputs."""
        source = self.rate if self.input_rate is None else self.input_rate
        gains = [
            _gain(self.rate, source, round(float(decay), 2), self.rectified)
            for decay in np.atleast_1d(self.decay)
        ]
        # A unit of twice the threshold with twice the weights spikes as before.
        found = np.asarray(self.threshold) * np.asarray(gains) * math.sqrt(self.share / inputs)
        return found if np.ndim(self.decay) or np.ndim(self.threshold) else found[0]

    def __call__(self, shape: Sequence[int], dtype: Dtype = None) -> Tensor:
        """Return weights of shape (..., inputs, units), of a matrix or a convolution."""
        deviation = self.deviation(math.prod(shape[:-1]))
        if deviation.shape not in ((), (1,), (shape[-1],)):
            raise ValueError(
                f"FluctuationDriven has decays or thresholds for {deviation.size} units. "
                f"Received: shape={tuple(shape)}, a kernel of {shape[-1]}"
            )
        noise = keras.random.normal(shape, dtype=dtype, seed=self.seed)
        return noise * ops.cast(deviation, noise.dtype)

    def get_config(self) -> Config:
        return {
            "rate": self.rate,
            "input_rate": self.input_rate,
            "decay": self.decay,
            "threshold": self.threshold,
            "rectified": self.rectified,
            "share": self.share,
            "seed": keras.saving.serialize_keras_object(self._seed),
        }


def _numbers(
    name: str, value: PerUnit, allowed: str, good: Callable[[np.ndarray], np.ndarray]
) -> float | list[float]:
    """Check a number, or a list of them; return it as JSON can hold it."""
    try:
        values = np.asarray(value, dtype="float64")
    except (TypeError, ValueError):
        values = np.full((), np.nan)
    if values.ndim > 1 or not values.size or not np.all(np.isfinite(values) & good(values)):
        raise ValueError(
            f"Argument `{name}` must be {allowed}, a number or one per unit. "
            f"Received: {name}={value!r}"
        )
    return values.tolist()


@lru_cache(maxsize=1024)
def _gain(rate: float, input_rate: float, decay: float, rectified: bool) -> float:
    """Return the deviation of the weights, times the root of their number, for a threshold of 1.

    Found by bisection; the draws are the same each time, so the rate grows with it smoothly.
    """
    random = np.random.default_rng(0)
    mean = input_rate * random.standard_normal(_UNITS)
    noise = math.sqrt(input_rate * (1 - input_rate)) * random.standard_normal((_STEPS, _UNITS))
    low, high = -6.0, 10.0
    for _ in range(16):
        middle = (low + high) / 2
        s, y, spikes = np.zeros(_UNITS), np.zeros(_UNITS), 0.0
        for step in noise:
            s = 2.0**middle * (mean + step) + decay * s * (1 - y)
            s = np.maximum(s, 0) if rectified else s
            y = s > 1
            spikes += y.mean()
        low, high = (middle, high) if spikes < rate * _STEPS else (low, middle)
    return 2.0 ** ((low + high) / 2)


class _Calls(observers.Observer):
    """Keep the calls of layers."""

    def __init__(self) -> None:
        self.runs: list[observers.Run] = []

    def observe(self, run: observers.Run) -> None:
        self.runs.append(run)


def calibrate(model: keras.Model, x: Nested, rate: float = 0.1) -> dict[str, float]:
    """Scale the kernels of all spiking layers, on data, until the layers spike at a rate.

        model = keras.Sequential([...])
        snukeras.initializers.calibrate(model, x_train[:256], rate=0.1)
        model.fit(x_train, y_train)

    The layers are taken in the order in which the model calls them, each on the spikes that those
    before it have by then. The weights of a layer, its recurrent ones too, are multiplied by one
    factor. Units that are silent on the data even so get the opposite weights, or their amounts
    without signs, and those that are silent or saturated a factor of their own. Biases, thresholds
    and decays stay as they are. Works on Sequential, functional and subclassed models, nested and
    wrapped layers, convolutions and recurrent units; in inference, so without dropout, and with the
    moving statistics of BatchNormalization. A layer that the model calls several times gets the
    rate over all its calls together. For weights before training: it is no training.

    Args:
        model: A built model with spiking layers.
        x: Inputs as an array, or a list, tuple or dict of arrays, (samples, ...); some hundred
            samples, which are computed at once. Of a data set of batches give one:
            `x, y = next(iter(dataset))`.
        rate: Target rate: spikes of a unit and step, in (0, 1).

    Returns:
        The rate reached, by the name of the layer.

    Raises:
        ValueError: `rate` is out of range; the model has no spiking layers; `x` holds no samples,
            or numbers that are not finite; a layer gets nothing but zeros on these data, or cannot
            reach the rate. The weights are then as they were.
        TypeError: The layers run inside a compiled function of the model's own, where their values
            cannot be read.
    """
    rate = _arguments.number("rate", rate, above=0.0, below=1.0)
    layers = observers.units_of(model, spiking_only=True)
    if not layers:
        raise ValueError(
            f"The model {model.name!r} has no spiking layers to calibrate. Allowed are models with "
            "layers such as snukeras.layers.SNU or ConvSNU2D; soft units need no calibration, and "
            "cells in keras.layers.RNN are not found."
        )
    observers.samples(x)
    observers.build(model, x)
    variables = [v for layer in layers.values() for v in layer.variables]
    before = [_array(v) for v in variables]
    states = [v for layer in layers.values() if layer.stateful for v in layer.states]
    first = [_array(v) for v in states]
    names = {id(layer): name for name, layer in layers.items()}

    def calls_of(watched: Iterable[keras.Layer]) -> list[observers.Run]:
        calls = _Calls()
        with observers.watching(calls, watched):
            model(x, training=False)
        _assign(states, first)
        return calls.runs

    try:
        for _ in range(_ROUNDS):
            done: set[str] = set()
            while True:
                runs = calls_of(layers.values())
                if not runs:
                    raise observers.hidden(next(iter(layers)))
                name = next((n for run in runs if (n := names[id(run.layer)]) not in done), None)
                if name is None:
                    break
                own = [run for run in runs if run.layer is layers[name]]
                _Scaling(name, own, rate, partial(calls_of, [layers[name]])).fit()
                done.add(name)
            reached = _reached(runs, names)
            off = [name for name, found in reached.items() if not _near(found, rate)]
            if not off:
                return reached
        # Only a layer that is called again behind others can be off by then.
        raise _beyond(off[0], rate, reached[off[0]])
    except Exception:
        _assign(variables, before)
        raise
    finally:
        _assign(states, first)


def _reached(runs: Sequence[observers.Run], names: dict[int, str]) -> dict[str, float]:
    """Return the rate of each layer over all its calls."""
    calls: dict[str, list[observers.Run]] = {}
    for run in runs:
        calls.setdefault(names[id(run.layer)], []).append(run)
    return {name: float(_unit_rates(own).mean()) for name, own in calls.items()}


def _unit_rates(runs: Sequence[observers.Run]) -> np.ndarray:
    """Return the rate of each unit of a layer over some calls, masked steps left out."""
    counted = []
    for run in runs:
        spikes = observers.values(run.spikes)
        if run.mask is not None:
            spikes = spikes[ops.convert_to_numpy(run.mask).astype(bool)]
        counted.append(spikes.reshape(-1, spikes.shape[-1]))
    return np.concatenate(counted).mean(axis=0)


def _near(reached: float, rate: float) -> bool:
    return 0.5 * rate <= reached <= 2.0 * rate + 0.01


def _beyond(name: str, rate: float, reached: float) -> ValueError:
    return ValueError(
        f"The layer {name!r} cannot reach the rate {rate:g} on these data by scaling its weights; "
        f"it has {reached:.3f}. Choose another rate, or look at its threshold, at the size of its "
        "inputs, and at how many of them are zero."
    )


def _array(variable: keras.Variable) -> np.ndarray:
    # A copy: the arrays of some backends are views that may not be written to.
    return np.array(ops.convert_to_numpy(ops.convert_to_tensor(variable)))


def _assign(variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class _Scaling:
    """Find factors for the weights of one layer, each unit's and the layer's.

    Args:
        name: What the layer is called in errors.
        runs: Its calls, on whose inputs it is calibrated.
        rate: The target rate.
        again: Runs the model and returns the calls anew: the inputs of one of several calls may
            depend on the outputs of those before.
    """

    def __init__(
        self,
        name: str,
        runs: Sequence[observers.Run],
        rate: float,
        again: Callable[[], list[observers.Run]],
    ) -> None:
        self.name = name
        self.runs = runs
        self.rate = rate
        self.again = again
        cell = runs[0].layer.cell
        kernels = [cell.kernel, cell.recurrent_kernel]
        self.kernels = [kernel for kernel in kernels if kernel is not None]
        self.start = [_array(kernel) for kernel in self.kernels]
        self.factors = np.ones(cell.units)
        if not any(np.any(ops.convert_to_numpy(run.sequences)) for run in runs):
            raise ValueError(
                f"The layer {name!r} gets nothing but zeros on the data, which no weights make "
                "spikes of. Give `x` inputs that are not zero; if a layer that is no SNU layer "
                "stands before, look at its outputs."
            )

    def fit(self) -> None:
        """Scale the layer and mend its units."""
        for _ in range(_ROUNDS):
            self._scale()
            if not self._mend():
                break
        self._set(self.factors)
        self._constrain()
        reached = float(self._rates(None).mean())
        if not _near(reached, self.rate):
            raise _beyond(self.name, self.rate, reached)

    def _set(self, factors: np.ndarray) -> None:
        for kernel, start in zip(self.kernels, self.start, strict=True):
            kernel.assign(start * factors.astype(start.dtype))

    def _constrain(self) -> None:
        for kernel in self.kernels:
            if kernel.constraint is not None:
                kernel.assign(kernel.constraint(kernel))

    def _rates(self, factors: np.ndarray | None) -> np.ndarray:
        """Return the rate of each unit with some factors on the weights; None for the weights as "
        "set."""
        if factors is not None:
            self._set(factors)
        if len(self.runs) > 1:
            return _unit_rates(self.again())
        calls, (run,) = _Calls(), self.runs
        with observers.watching(calls, [run.layer]):
            run.layer(run.sequences, initial_state=run.initial_state, mask=run.mask, training=False)
        return _unit_rates(calls.runs)

    def _bisect(self, chosen: np.ndarray, by_unit: bool) -> None:
        """Multiply the factors of chosen units so that their rates are the target's.

        Args:
            chosen: Bool, (units,).
            by_unit: Each unit by itself; else all by one factor, for their mean.
        """
        low, high = np.full(len(chosen), -_WIDEST), np.full(len(chosen), _WIDEST)
        middle = np.zeros(len(chosen))
        width = 1.0
        for _ in range(_BISECTIONS):
            rates = self._rates(self._times(chosen, middle))
            if not by_unit:
                rates = np.full(len(chosen), rates[chosen].mean())
            above = rates > self.rate
            high, low = np.where(above, middle, high), np.where(above, low, middle)
            # Step outwards first: the right factor is mostly near 1.
            outwards = np.where(above, low == -_WIDEST, high == _WIDEST)
            step = np.where(above, -width, width)
            middle = np.where(outwards, np.clip(middle + step, -_WIDEST, _WIDEST), (low + high) / 2)
            width *= 2.0
        self.factors = self._times(chosen, low)

    def _times(self, chosen: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Return the factors, those of chosen units times a power of two, within the widest."""
        times = np.where(chosen, self.factors * 2.0**power, self.factors)
        return np.clip(times, -(2.0**_WIDEST), 2.0**_WIDEST)

    def _scale(self) -> None:
        self._bisect(np.ones(len(self.factors), bool), by_unit=False)

    def _mend(self) -> bool:
        """Mend the units that are silent or saturated; return whether there were any."""
        rates = self._rates(self.factors)
        silent = rates == 0
        bad = silent | (rates > _SATURATED)
        if not bad.any():
            return False
        self.factors = np.where(silent, -self.factors, self.factors)
        self._bisect(bad, by_unit=True)
        still = bad & (self._rates(self.factors) == 0)
        if still.any():
            for start in self.start:
                start[..., still] = np.abs(start[..., still])
            others = np.abs(self.factors[~still])
            self.factors = np.where(still, np.median(others) if others.size else 1.0, self.factors)
            self._bisect(still, by_unit=True)
        return True
