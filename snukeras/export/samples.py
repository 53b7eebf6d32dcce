"""Input that an export is compared on: songs, the user's file, or random numbers."""

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np

from snukeras.export.errors import BadInputError
from snukeras.layers import LogMel, TiedEmbedding
from snukeras.network import topology


@dataclasses.dataclass(frozen=True)
class Samples:
    """Input for the comparison.

    Attributes:
        kind: what they are, for the report.
        batches: per batch one array per model input.
        targets: per batch what the first output is to be compared with, or None.
        metric: a name of `snukeras.export.metric.METRICS`, for the targets.
    """

    kind: str
    batches: list[list[np.ndarray]]
    targets: list[np.ndarray] | None = None
    metric: str = "frame_nll"

    @classmethod
    def songs(cls, rolls: list[np.ndarray], kind: str, steps: int | None = None) -> "Samples":
        """Each piano roll (T, keys) as a batch of one: frames 0..T-2 predict frames 1..T-1.

        A network of a fixed number of steps gets the rolls in pieces of that length.
        """
        rolls = [np.asarray(roll, dtype="float32") for roll in rolls]
        if steps is not None:
            rolls = [
                roll[start : start + steps + 1]
                for roll in rolls
                for start in range(0, len(roll) - steps, steps)
            ]
        return cls(kind, [[roll[None, :-1]] for roll in rolls], [roll[None, 1:] for roll in rolls])

    @classmethod
    def random(cls, model: keras.Model, seed: int = 0, batch: int = 4, steps: int = 20):
        """Standard normal numbers for floats, valid indices for integers.

        Sound is noise, as long as so many steps take.
        """
        plan = topology.read(model)
        generator = np.random.default_rng(seed)
        feeds = []
        for _, ref in plan.inputs:
            fixed = ref.shape[0] if ref.shape else None
            shape = [fixed or batch, *(steps if size is None else size for size in ref.shape[1:])]
            ear = _ear(plan, ref)
            if ear is not None:
                length = ref.shape[1] or ear.frame_length + (steps - 1) * ear.frame_step
                feeds.append(0.1 * generator.standard_normal((shape[0], length), "float32"))
            elif ref.dtype.startswith("float"):
                feeds.append(generator.standard_normal(shape).astype(ref.dtype))
            elif ref.dtype == "bool":
                feeds.append(generator.random(shape) < 0.8)
            else:
                feeds.append(generator.integers(0, _vocabulary(plan, ref), shape).astype(ref.dtype))
        return cls("random input", [feeds])

    def save(self, path) -> None:
        """Writes the samples as .npz, without pickles."""
        arrays: dict[str, Any] = {
            "kind": np.asarray(self.kind),
            "metric": np.asarray(self.metric),
        }
        for number, feeds in enumerate(self.batches):
            arrays |= {f"{number}.input.{index}": feed for index, feed in enumerate(feeds)}
            if self.targets is not None:
                arrays[f"{number}.target"] = self.targets[number]
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path) -> "Samples":
        with np.load(path, allow_pickle=False) as file:
            texts = {"kind": "", "metric": "frame_nll"}
            texts = {key: str(file[key]) if key in file.files else texts[key] for key in texts}
            count = 1 + max(int(key.split(".")[0]) for key in file.files if key not in texts)
            batches, targets = [], []
            for number in range(count):
                inputs = [key for key in file.files if key.startswith(f"{number}.input.")]
                batches.append([file[f"{number}.input.{index}"] for index in range(len(inputs))])
                if f"{number}.target" in file.files:
                    targets.append(file[f"{number}.target"])
            return cls(texts["kind"], batches, targets or None, texts["metric"])


def _ear(plan: topology.Topology, ref: topology.Ref) -> LogMel | None:
    """The LogMel layer that an input goes to, if it is sound."""
    ears = (call.op for call in plan.calls if isinstance(call.op, LogMel) and ref in call.inputs)
    return next(ears, None)


def _vocabulary(plan, ref):
    sizes = [
        call.op.input_dim
        for call in plan.calls
        if isinstance(call.op, keras.layers.Embedding | TiedEmbedding)
        and call.inputs[0].key == ref.key
    ]
    return min(sizes, default=2)


def samples_from_file(path, model: keras.Model, metric: str | None = None) -> Samples:
    """Samples from the user's .npz.

    Args:
        path: the file: one array per model input, by name or in the order stored, and, where the
            metric is to be measured, an array "targets" for the first output.
        model: the model.
        metric: name of the metric; by default "accuracy" where targets are integers, else
            "frame_nll".

    Raises:
        BadInputError: the file cannot be read, or its arrays are not those of the model.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read as .npz: {error}.") from error
    names = [name for name, _ in topology.read(model).inputs]
    targets = None if "targets" in names else arrays.pop("targets", None)
    if set(names) <= set(arrays):
        feeds = [arrays[name] for name in names]
    elif len(arrays) == len(names):
        feeds = list(arrays.values())
    else:
        raise BadInputError(
            f"{path} has arrays {', '.join(arrays)}; the model has inputs {', '.join(names)}."
        )
    if targets is None:
        if metric is not None:
            raise BadInputError(
                f"{path} has no array 'targets', which the metric {metric} is measured against."
            )
        return Samples(Path(path).name, [feeds])
    guess = "accuracy" if targets.dtype.kind in "iu" else "frame_nll"
    return Samples(Path(path).name, [feeds], [targets], metric or guess)
