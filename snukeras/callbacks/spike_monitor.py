"""Watch how many spikes the layers of a model have while it trains."""

import inspect
import warnings

import keras
import numpy as np
from keras import ops

from snukeras import _arguments, _strategy
from snukeras._types import Logs, Tensor
from snukeras.network import observers

# After this many batches silent layers are reported, without waiting for the end of the epoch.
_EARLY = 20
# The callback warns if this share of the units of a layer is silent, or saturated.
_TOO_MANY = 0.9
# It also warns if the mean rate of a layer is below this one, however many units share the spikes.
_TOO_RARE = 0.005


class _Counts(keras.metrics.Metric, observers.Observer):
    """Count the spikes of each unit of a layer in training.

    A metric, so that Keras mirrors its variables on replicas. On JAX the counts are arrays of
    NumPy, to which the compiled step sends its sums.
    """

    def __init__(self, units: int, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.untold = False
        """Whether the model does not tell its layers that it trains, and is training now."""
        self.spikes = self.add_variable((units,), "zeros", name="spikes")
        self.steps = self.add_variable((), "zeros", name="steps")
        self._told: list[np.ndarray] | None = None
        self.reset_state()

    def reset_state(self) -> None:
        _strategy.wait_for_told()
        super().reset_state()
        if keras.backend.backend() == "jax":
            self._told = [np.zeros(self.spikes.shape), np.zeros(())]

    def observe(self, run: observers.Run) -> None:
        if run.training or self.untold:
            self.update_state(run.spikes, run.mask)

    def update_state(self, spikes: Tensor, mask: Tensor | None = None) -> None:
        """Add the spikes (batch, time, ..., units) of a batch, but for masked steps."""
        spikes = ops.cast(ops.stop_gradient(spikes), "float32")
        places = ops.size(spikes[..., 0])
        if mask is not None:
            mask = ops.cast(mask, "float32")
            places = ops.sum(mask) * ops.cast(ops.size(spikes[0, 0, ..., 0]), "float32")
            spikes = spikes * ops.reshape(mask, (*ops.shape(mask), *[1] * (spikes.ndim - 2)))
        spikes = ops.sum(spikes, axis=tuple(range(spikes.ndim - 1)))
        if self._told is not None:
            _strategy.tell(self._add, spikes, places)
            return
        self.spikes.assign_add(spikes)
        self.steps.assign_add(ops.cast(places, "float32"))

    def _add(self, spikes: np.ndarray, steps: np.ndarray) -> None:
        assert self._told is not None
        self._told = [self._told[0] + spikes, self._told[1] + steps]

    def result(self) -> np.ndarray:
        """Return the rate of each unit, NumPy, shape (units,)."""
        _strategy.wait_for_told()
        spikes, steps = self._told or (
            ops.convert_to_numpy(ops.convert_to_tensor(v)) for v in (self.spikes, self.steps)
        )
        return spikes / max(float(steps), 1.0)


class SpikeMonitor(keras.callbacks.Callback):
    """Write the rates of all spiking layers into the logs, and warn of silent layers.

        history = model.fit(x, y, callbacks=[snukeras.callbacks.SpikeMonitor()])
        history.history["snu/rate"]

    At the end of each epoch the logs have, for every layer of SNUs, counted over the training
    batches of the epoch but for masked steps:

    - "LAYER/rate": spikes of a unit and step, from 0 to 1;
    - "LAYER/silent": the share of units without a spike;
    - "LAYER/saturated": the share of units that spike at more than `saturated` of the steps.

    The units of a convolution are its filters. History has them from there, and so have
    TensorBoard and CSVLogger if they come after this callback in the list. Soft units are left out.

    A layer that is silent or saturated passes no gradient on, and the loss then stays where it is.
    The callback warns of it once in a training, after 20 batches or at the end of an epoch: if nine
    tenths of the units of a layer are so, or if the rate of a layer is below 0.005.

    The counts are sums inside the compiled training step, over spikes that it has anyway, so they
    cost little. The step is traced anew when the training begins.

    Args:
        saturated: Rate above which a unit counts as saturated, in (0, 1).
        warn: Whether to warn.

    Raises:
        ValueError: `saturated` is out of range; or, when the training begins, the model has no
            spiking layers.
    """

    def __init__(self, saturated: float = 0.95, warn: bool = True) -> None:
        super().__init__()
        self.saturated = _arguments.number("saturated", saturated, above=0.0, below=1.0)
        self.warn = bool(warn)
        self._counts: dict[str, _Counts] = {}
        self._layers: dict[str, keras.Layer] = {}
        self._warned = False
        self._epoch = 0
        self._told_early = False

    def set_model(self, model: keras.Model) -> None:
        """Begin to watch a model; Keras calls this before it makes the training step."""
        super().set_model(model)
        self._stop()
        layers = observers.units_of(model, spiking_only=True)
        if not layers:
            raise ValueError(
                f"SpikeMonitor needs a model with spiking layers, such as snukeras.layers.SNU "
                f"(cells in keras.layers.RNN are none). "
                f"Received: {model.name!r}, which has none."
            )
        with _strategy.scope_of(model):
            self._counts = {
                name: _Counts(layer.cell.units, f"spikes_of_{layer.name}")
                for name, layer in layers.items()
            }
        self._layers = layers
        for name, counts in self._counts.items():
            observers.attach(counts, [layers[name]])
        self._trains(True)
        # A step that was traced before knows of no counts.
        model.train_function = None

    def _stop(self) -> None:
        for name, counts in self._counts.items():
            observers.detach(counts, [self._layers[name]])
        self._counts, self._layers = {}, {}

    def _trains(self, now: bool) -> None:
        """Note whether training steps are made now, for models whose `call` has no `training`.

        Keras tells the layers of such a model nothing, whatever step they are in.
        """
        told = "training" in inspect.signature(self.model.call).parameters
        for counts in self._counts.values():
            counts.untold = now and not told

    def on_test_begin(self, logs: Logs = None) -> None:
        self._trains(False)

    def on_test_end(self, logs: Logs = None) -> None:
        self._trains(True)

    def on_train_begin(self, logs: Logs = None) -> None:
        self._warned = False
        self._told_early = False

    def on_train_end(self, logs: Logs = None) -> None:
        self._stop()
        self.model.train_function = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch
        for counts in self._counts.values():
            counts.reset_state()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self.warn and not self._told_early and batch >= _EARLY - 1:
            self._told_early = True
            self._tell()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            for name in self._counts:
                for what, value in zip(
                    ("rate", "silent", "saturated"), self._of(name), strict=True
                ):
                    logs[f"{name}/{what}"] = value
        if self.warn:
            self._tell()

    def _of(self, name: str) -> tuple[float, float, float]:
        """Return rate, share of silent units and share of saturated units of a layer."""
        rates = self._counts[name].result()
        return (
            float(rates.mean()),
            float((rates == 0).mean()),
            float((rates > self.saturated).mean()),
        )

    def _tell(self) -> None:
        """Warn of the layers that are silent or saturated, once in a training."""
        if self._warned:
            return
        troubles = []
        for name in self._counts:
            rate, silent, saturated = self._of(name)
            if max(silent, saturated) >= _TOO_MANY:
                share, what = max((silent, "have not spiked"), (saturated, "spike at every step"))
                troubles.append(
                    f"{share:.0%} of the units of {name!r} {what} (mean rate {rate:.3f})"
                )
            elif rate < _TOO_RARE:
                troubles.append(f"the units of {name!r} hardly spike (mean rate {rate:.4f})")
        if troubles:
            self._warned = True
            warnings.warn(
                f"Epoch {self._epoch + 1}: {'; '.join(troubles)}. Such units carry no information, "
                "and hardly any gradient reaches the layers before them. Scale the weights to a "
                "rate on your data before training, snukeras.initializers.calibrate(model, x), or "
                "put keras.layers.BatchNormalization() in front of the layer, or change its "
                "threshold.",
                stacklevel=2,
            )
