"""Input that an export is compared on: songs, the user's file, or random numbers."""

import dataclasses
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from snukeras._files import regular, write_arrays
from snukeras.export.errors import BadInputError
from snukeras.export.network import Network
from snukeras.export.verify.figures import METRICS
from snukeras.layers import LogMel, TiedEmbedding
from snukeras.network.topology import Ref, Topology

if TYPE_CHECKING:
    from snukeras.zoo.tasks.task import Part

# The largest size in bytes that an archive may unpack to.
MAX_BYTES = 4 * 2**30
# The name in reports of the chorales that ship.
CHORALES = "sample chorales"
_HINT = "Save arrays with numpy.savez('samples.npz', x=..., targets=...)."


@dataclasses.dataclass(frozen=True)
class Samples:
    """Input for the comparison.

    Attributes:
        kind: What they are, for the report.
        batches: Per batch one array per model input.
        targets: Per batch what the first output is to be compared with, or None.
        metric: A name of `snukeras.export.verify.figures.METRICS`, for the targets.
        asked: Whether the user gave the targets, so that a metric that cannot be measured is an
            error.
    """

    kind: str
    batches: list[list[np.ndarray]]
    targets: list[np.ndarray] | None = None
    metric: str = "frame_nll"
    asked: bool = False

    @classmethod
    def songs(cls, rolls: Sequence[np.ndarray], kind: str, steps: int | None = None) -> "Samples":
        """Make a batch of one of each piano roll (T, keys): frames 0..T-2 predict 1..T-1.

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
    def chorales(cls, network: Network) -> "Samples | None":
        """Take the chorales that ship.

        Returns:
            None where the network plays none, or takes longer pieces.
        """
        if not network.plays_chorales:
            return None
        from snukeras.zoo.samples import read

        try:
            _, rolls = read()
        except (OSError, ValueError):
            return None
        found = cls.songs(rolls, CHORALES, network.topology.inputs[0][1].shape[1])
        return found if found.batches else None

    @classmethod
    def part(cls, part: "Part") -> "Samples":
        """Take a part of the test split of a task of the zoo."""
        return cls(part.what, [[batch] for batch in part.inputs], part.targets, part.metric)

    @classmethod
    def random(
        cls, network: Network | keras.Model, seed: int = 0, batch: int = 4, steps: int = 20
    ) -> "Samples":
        """Draw standard normal numbers for floats and valid indices for integers.

        Sound is noise, as long as its frames take.
        """
        plan = _topology(network)
        generator = np.random.default_rng(seed)
        feeds: list[np.ndarray] = []
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

    def save(self, path: str | Path) -> None:
        """Write the samples as .npz, without pickles."""
        arrays = {"kind": np.asarray(self.kind), "metric": np.asarray(self.metric)}
        for number, feeds in enumerate(self.batches):
            arrays |= {f"{number}.input.{index}": feed for index, feed in enumerate(feeds)}
            if self.targets is not None:
                arrays[f"{number}.target"] = self.targets[number]
        write_arrays(path, arrays, compress=True)

    @classmethod
    def load(cls, path: str | Path) -> "Samples":
        """Read what `save` wrote.

        Raises:
            BadInputError: The file cannot be read, or is not what `save` writes.
        """
        arrays = read_arrays(path)
        texts = {"kind": "", "metric": "frame_nll"}
        texts |= {key: str(arrays.pop(key)) for key in texts if key in arrays}
        if texts["metric"] not in METRICS:
            raise BadInputError(
                f"{path} asks for the metric {texts['metric']!r}; known: {', '.join(METRICS)}."
            )
        inputs: dict[int, dict[int, np.ndarray]] = {}
        targets: dict[int, np.ndarray] = {}
        for key, array in arrays.items():
            match = re.fullmatch(r"([0-9]{1,6})\.(?:input\.([0-9]{1,3})|target)", key)
            if match is None:
                raise BadInputError(f"{path} has an unknown array {key!r}.")
            if match[2] is None:
                targets[int(match[1])] = array
            else:
                inputs.setdefault(int(match[1]), {})[int(match[2])] = array
        whole = all(sorted(feeds) == list(range(len(feeds))) for feeds in inputs.values())
        counted = inputs and sorted(inputs) == list(range(len(inputs)))
        if not whole or not counted or (targets and sorted(targets) != sorted(inputs)):
            raise BadInputError(f"{path} lacks arrays of some batches.")
        return cls(
            texts["kind"],
            [[feeds[i] for i in range(len(feeds))] for _, feeds in sorted(inputs.items())],
            [array for _, array in sorted(targets.items())] or None,
            texts["metric"],
        )


def _topology(network: Network | keras.Model) -> Topology:
    return network.topology if isinstance(network, Network) else Network.read(network).topology


def _ear(plan: Topology, ref: Ref) -> LogMel | None:
    """Return the LogMel layer that an input goes to, if it is sound."""
    ears = (call.op for call in plan.calls if isinstance(call.op, LogMel) and ref in call.inputs)
    return next(ears, None)


def _vocabulary(plan: Topology, ref: Ref) -> int:
    sizes = [
        call.op.input_dim
        for call in plan.calls
        if isinstance(call.op, keras.layers.Embedding | TiedEmbedding)
        and call.inputs[0].key == ref.key
    ]
    return min(sizes, default=2)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file.

    Raises:
        BadInputError: The file is missing, damaged, no .npz, or larger than can be handled.
    """
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            total = sum(member.file_size for member in archive.infolist())
        if total > MAX_BYTES:
            raise BadInputError(
                f"{path} unpacks to {total:,} bytes; at most {MAX_BYTES:,}.", "Give fewer samples."
            )
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except BadInputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInputError(f"{path} cannot be read: {reason}.", _HINT) from error
    except (ValueError, EOFError, KeyError, SyntaxError, NotImplementedError, RuntimeError,
            zipfile.BadZipFile, zlib.error, MemoryError) as error:  # fmt: skip
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInputError(
            f"{path} cannot be read as .npz: {lines[0][:200].rstrip('.')}.", _HINT
        ) from error


def samples_from_file(
    path: str | Path, network: Network | keras.Model, metric: str | None = None
) -> Samples:
    """Read samples from the user's .npz.

    Args:
        path: The file: one array per model input, by name or in the order stored, and, where the
            metric is to be measured, an array "targets" for the first output.
        network: The network.
        metric: Name of the metric; by default "accuracy" where targets are integers, else
            "frame_nll".

    Raises:
        BadInputError: The file cannot be read, or its arrays are not those of the model.
    """
    plan = _topology(network)
    arrays = read_arrays(path)
    names = [name for name, _ in plan.inputs]
    targets = None if "targets" in names else arrays.pop("targets", None)
    if set(names) <= set(arrays):
        feeds = [arrays[name] for name in names]
    elif len(arrays) == len(names):
        feeds = list(arrays.values())
    else:
        raise BadInputError(
            f"{path} has arrays {', '.join(arrays) or 'of no input'}; the model has inputs "
            f"{', '.join(names)}."
        )
    feeds = [
        _input(path, name, ref, feed) for (name, ref), feed in zip(plan.inputs, feeds, strict=True)
    ]
    kind = Path(path).name
    if len({len(feed) for feed in feeds}) > 1:
        lengths = ", ".join(f"{name} {len(feed)}" for name, feed in zip(names, feeds, strict=True))
        raise BadInputError(f"{path} has inputs of different numbers of samples: {lengths}.")
    if targets is None:
        if metric is not None:
            raise BadInputError(
                f"{path} has no array 'targets', which the metric {metric} is measured against."
            )
        return Samples(kind, [feeds])
    chosen = metric or ("accuracy" if targets.dtype.kind in "iu" else "frame_nll")
    _check_targets(path, targets, chosen, plan.outputs[0][1], feeds[0])
    return Samples(kind, [feeds], [targets], chosen, asked=True)


def _input(path: str | Path, name: str, ref: Ref, feed: np.ndarray) -> np.ndarray:
    """Check an array against an input of the model; return it in the input's dtype."""
    wanted = f"({', '.join('any' if size is None else str(size) for size in ref.shape)})"
    fits = feed.ndim == len(ref.shape) and all(
        size in (None, own) for size, own in zip(ref.shape, feed.shape, strict=True)
    )
    if not fits:
        raise BadInputError(
            f"{path}: the input {name} must have the shape {wanted}. Received: {feed.shape}."
        )
    if 0 in feed.shape:
        raise BadInputError(
            f"{path}: the input {name} is empty. Received: {feed.shape}.",
            "Give at least one sample, and at least one step of a sequence.",
        )
    number = feed.dtype.kind in ("fiub" if ref.dtype.startswith("float") else "iub")
    if not number:
        raise BadInputError(
            f"{path}: the input {name} must hold {ref.dtype}. Received: {feed.dtype}."
        )
    with np.errstate(over="ignore"):
        feed = feed.astype(ref.dtype)
    if feed.dtype.kind == "f" and not np.all(np.isfinite(feed)):
        raise BadInputError(
            f"{path}: the input {name} holds numbers that are NaN, infinite, or beyond float32."
        )
    return feed


def _check_targets(
    path: str | Path, targets: np.ndarray, metric: str, output: Ref, feed: np.ndarray
) -> None:
    """Refuse targets that the metric cannot compare the first output with."""
    known = METRICS[metric]
    wanted = output.shape[:-1] if known.classes else output.shape
    given = targets.shape
    fits = len(given) == len(wanted) and all(
        size in (None, own) for size, own in zip(wanted, given, strict=True)
    )
    if not fits or given[0] != len(feed):
        shape = ", ".join("any" if size is None else str(size) for size in wanted[1:])
        raise BadInputError(
            f"{path}: for the metric {metric} targets must have the shape "
            f"({', '.join(filter(None, [str(len(feed)), shape]))}). Received: {given}.",
            "Integers are classes (accuracy, cross_entropy); frame_nll takes 0 and 1 as outputs.",
        )
    if known.classes:
        if targets.dtype.kind not in "iu":
            raise BadInputError(
                f"{path}: the metric {metric} takes numbers of classes. Received: {targets.dtype}."
            )
        classes = output.shape[-1]
        if targets.min() < 0 or (classes is not None and targets.max() >= classes):
            raise BadInputError(
                f"{path}: targets must be classes from 0 to {(classes or 1) - 1}. "
                f"Received: {targets.min()} to {targets.max()}."
            )
        return
    if targets.dtype.kind not in "fiub" or not np.all((targets >= 0) & (targets <= 1)):
        raise BadInputError(f"{path}: targets of the metric {metric} must lie in [0, 1].")
