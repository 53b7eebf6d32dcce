"""Monte-Carlo evaluation: one network on many chips, at several times."""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import tempfile
import time as clock
import warnings
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from snukeras import _arguments, _executors, _files
from snukeras._executors import Executor
from snukeras._terminal import bar
from snukeras._types import Array, Config, Nested
from snukeras.network.models import copy_model
from snukeras.pcm.analog_network import AnalogNetwork
from snukeras.pcm.chip import Chip, matrix_names
from snukeras.pcm.devices import GenericPCM, InferencePCM
from snukeras.pcm.faults import StuckDevices
from snukeras.pcm.hardware import Hardware
from snukeras.pcm.pairs import DifferentialPair

FORMAT = "snukeras chip evaluation 2"
# Chips before a standard error of their mean is believed.
_FEWEST = 8
HOUR, DAY, YEAR = 3600.0, 86400.0, 31536000.0

#: {"chip": number, "time": seconds, metric: value, ...}
Row = dict[str, float]


def evaluate_chips(
    model: keras.Model,
    x: Nested,
    y: Nested = None,
    sample_weight: Array | None = None,
    chips: int = 100,
    times: Sequence[float] = (25.0, HOUR, DAY, YEAR),
    seed: int = 0,
    results: str | Path | None = None,
    workers: int = 1,
    batch_size: int = 32,
    progress: bool = True,
    device: InferencePCM | None = None,
    embeddings: bool = False,
    faults: dict[str, StuckDevices] | None = None,
    pair: DifferentialPair | None = None,
    tile_size: tuple[int, int] | None = None,
    wire_resistance: float | None = None,
    compensation: str | None = None,
    avoid_faults: bool = True,
    hardware: Hardware | None = None,
    slices: Sequence[float] = (1.0,),
    programmed_for: float | None = None,
    samples: int | None = None,
    stderr: dict[str, float] | None = None,
    executor: Executor | None = None,
) -> list[Row]:
    """Evaluate a compiled model on many chips, each with its own devices.

    Chip number i depends on `seed` and i alone, so that the rows do not depend on workers,
    executors or interruptions. An analog network (`snukeras.pcm.analog`) is evaluated with its
    converters and the noise of each product, which starts from the same numbers at all times of a
    chip, so that times compare well; one compiled model serves all.

    Args:
        model: compiled Keras model, plain or analog.
        x, y, sample_weight: for `model.evaluate`: arrays, lists or dicts of arrays; or `x` alone, a
            tf.data.Dataset or another iterable of batches, which is kept in memory.
        chips: number of chips; with `stderr` the largest.
        times: seconds since the reference reading (see InferencePCM), in the order of reading.
        seed: int.
        results: path of a JSON file that keeps the rows. If it exists, only chips that it lacks
            are evaluated; it may have been interrupted, or asked for fewer chips.
        workers: processes of this machine; one that dies is replaced. With more than one, the
            calling script needs the usual `if __name__ == "__main__":`.
        batch_size: for `model.evaluate`.
        progress: whether to show a progress bar on a terminal.
        device, embeddings, faults, pair, tile_size, wire_resistance, compensation, avoid_faults,
            slices, programmed_for: as for Chip.
        hardware: must be None: a real chip is one chip, with a clock of its own. Use Chip for it.
        samples: how many samples of the arrays each chip sees, its own at all times; None: all. A
            row then holds the metric of the model without devices on all samples, plus what the
            chip changes on its own: most of what tells samples apart cancels. All samples are used
            equally often.
        stderr: stop after the first chips (8 at least) whose means are known this well at all
            times: standard errors by metric, such as {"accuracy": 0.0002}. Where chips take the
            samples in turn, so that several chips see the same, what tells the samples of one turn
            from those of another is left out of them (`summarize` with `turns`).
        executor: in place of `workers`, where to evaluate the chips, each in a task of its own:
            anything with the `submit` of concurrent.futures.Executor, such as a pool of spawned
            processes or a client of Dask. A worker needs snukeras in this version, and the modules
            of custom classes; it is sent the model as a .keras file, and the data.

    Returns:
        A list of dicts {"chip", "time", and the metrics}, by chip, then time.

    Raises:
        ValueError: the model is not compiled; hardware is given; a time is negative; inputs, labels
            and weights of several lengths; samples of batches; a standard error that is not
            positive, or of no metric; no chips; workers and an executor; the file has the results
            of another model, other data or other settings.
        RuntimeError: a worker has another version, or chips were lost with their workers; those
            that are done are in `results`.
    """
    workers = _arguments.whole("workers", workers)
    if _executors.checked(executor) is not None and workers > 1:
        raise ValueError(
            f"`workers` must be 1 where an `executor` is given, which has its own. Received: "
            f"workers={workers}"
        )
    if not getattr(model, "compiled", False):
        raise ValueError(
            "Argument `model` must be compiled, with the metrics to evaluate. Received: a model "
            "that is not compiled; call `model.compile` first."
        )
    if hardware is not None:
        raise ValueError("`hardware` cannot be evaluated many times over. Use Chip directly.")
    chips = _arguments.whole("chips", chips)
    batch_size = _arguments.whole("batch_size", batch_size)
    seed = _arguments.whole("seed", seed, minimum=0)
    if not hasattr(times, "__iter__"):
        raise ValueError(f"Argument `times` must be a sequence of times. Received: {times!r}")
    times = [_arguments.number("times", t, minimum=0.0) for t in times]
    if not times:
        raise ValueError("Argument `times` must hold at least one time in seconds. Received: none.")
    data = collected(x, y, sample_weight)
    if samples is not None:
        samples = _checked_samples(samples, data)
    if not isinstance(stderr, dict | None):
        raise ValueError(
            f"`stderr` must be None or a dict of standard errors by metric. Received: {stderr!r}"
        )
    for name, value in (stderr or {}).items():
        _arguments.number(f"stderr[{name!r}]", value, above=0.0)
    tiled = isinstance(model, AnalogNetwork)
    if device is None:
        device = (model.device if tiled else None) or GenericPCM()
    chip = {
        "device": device,
        "embeddings": embeddings,
        "faults": faults,
        "pair": pair,
        "tile_size": tile_size if tiled else tile_size or (256, 256),
        "wire_resistance": wire_resistance if tiled else wire_resistance or 0.0,
        "compensation": compensation,
        "avoid_faults": avoid_faults,
    }
    # Only where they are set, so that older results can go on.
    if tuple(slices) != (1.0,):
        chip["slices"] = tuple(slices)
    if programmed_for is not None:
        chip["programmed_for"] = programmed_for
    settings = {
        "seed": int(seed),
        "times": times,
        "model": _digest(_architecture(model).encode(), *model.get_weights()),
        "data": data.digest(),
        "chip": {name: _described(value) for name, value in sorted(chip.items())},
    }
    if samples is not None:
        settings["samples"] = samples
    work = _Work(model, data, settings, chip, batch_size)
    with contextlib.ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(_executors.opened(max(1, min(workers, chips))))
        return _evaluated(work, chips, results, executor, progress, stderr)


def _evaluated(
    work: "_Work",
    chips: int,
    results: str | Path | None,
    executor: Executor | None,
    progress: bool,
    stderr: dict[str, float] | None = None,
) -> list[Row]:
    """Evaluate the chips that `results` lacks, and keep all rows there."""
    rows = _load(results, work.settings)
    missing = [i for i in range(chips) if i not in rows]
    turns = work.turns()
    enough = _enough(rows, stderr, chips, turns)
    if enough is not None:
        missing = []
    saved = clock.monotonic()
    running = _run(work, missing, executor, progress)
    try:
        for number, found in running:
            rows[number] = found
            enough = _enough(rows, stderr, chips, turns)
            if enough is not None:
                break
            if results is not None and clock.monotonic() - saved > 5.0:
                _save(results, work.settings, rows)
                saved = clock.monotonic()
    finally:
        running.close()
        if results is not None:
            _save(results, work.settings, rows)
    wanted = chips if enough is None else enough
    return [row for number in sorted(rows) if number < wanted for row in rows[number]]


def _enough(
    rows: dict[int, list[Row]], stderr: dict[str, float] | None, chips: int, turns: int
) -> int | None:
    """Return how many chips, from the first on, give means as well known as asked for."""
    if not stderr:
        return None
    together = next((number for number in range(chips) if number not in rows), chips)
    for name in stderr:
        known = [key for key in rows[0][0] if key not in ("chip", "time")] if 0 in rows else [name]
        if name not in known:
            raise ValueError(
                f"`stderr` must name metrics of the model, {', '.join(known)}. Received: {name!r}"
            )
    if together < _FEWEST:
        return None
    values = np.array(
        [[[row[name] for name in stderr] for row in rows[number]] for number in range(together)]
    )
    wanted = np.array(list(stderr.values()))
    for count in range(_FEWEST, together + 1):
        if np.all(_standard_error(values[:count], turns) <= wanted):
            return count
    return None


def _standard_error(values: np.ndarray, turns: int) -> np.ndarray:
    """Return the standard error of the mean of chips, (chips, ...).

    Chips i and i + turns saw the same samples. Where each turn was taken equally often, the mean is
    one over all samples, and only what tells chips of the same samples apart makes it uncertain.

    Args:
        values: Of the chips, from number 0 on.
        turns: How many sets of samples they took in turn.
    """
    count = len(values)
    if turns > 1 and count >= 2 * turns and count % turns == 0:
        by_turn = values.reshape(count // turns, turns, *values.shape[1:])
        squares = np.square(by_turn - by_turn.mean(axis=0)).sum(axis=(0, 1))
        return np.asarray(np.sqrt(squares / (count - turns) / count))
    if count < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(axis=0, ddof=1) / np.sqrt(count))


def summarize(rows: Sequence[Row], turns: int = 1) -> dict[float, dict[str, dict[str, float]]]:
    """Return statistics of the rows by time.

    Args:
        rows: Of `evaluate_chips`.
        turns: How many chips it takes until each sample was seen once: the number of samples over
            `samples`, where that is whole. What tells the samples of one turn from those of another
            is no part of the standard error then.

    Returns:
        {time: {metric: {mean, std, min, median, max, stderr}}}; `stderr` is the standard error of
        the mean, NaN for one chip.
    """
    turns = _arguments.whole("turns", turns)
    summary: dict[float, dict[str, dict[str, float]]] = {}
    for t in sorted({row["time"] for row in rows}):
        chosen = sorted((row for row in rows if row["time"] == t), key=lambda row: row["chip"])
        summary[t] = {
            metric: {
                "mean": float(np.mean(values)),
                "std": float(np.std(values)),
                "min": float(np.min(values)),
                "median": float(np.median(values)),
                "max": float(np.max(values)),
                "stderr": float(_standard_error(np.array(values), turns)),
            }
            for metric in chosen[0]
            if metric not in ("chip", "time")
            for values in [[row[metric] for row in chosen]]
        }
    return summary


@dataclasses.dataclass(frozen=True)
class Data:
    """What a model is evaluated on: arrays, or batches of them, as arguments by name."""

    arrays: Config | None
    batches: tuple[Config, ...] = ()

    def __len__(self) -> int:
        """Count the samples of the arrays."""
        return 0 if self.arrays is None else len(keras.tree.flatten(self.arrays["x"])[0])

    def digest(self) -> str:
        """Compute the sha256 of all arrays."""
        found = [self.arrays] if self.arrays is not None else list(self.batches)
        names = [
            ",".join(sorted(part)).encode()
            for arguments in found
            for part in arguments.values()
            if isinstance(part, dict)
        ]
        return _digest(*names, *(array for part in found for array in keras.tree.flatten(part)))

    def of(self, samples: np.ndarray) -> "Data":
        """Return some samples of the arrays."""
        return Data(keras.tree.map_structure(lambda array: array[samples], self.arrays))

    def evaluate(self, model: Nested, batch_size: int) -> dict[str, float]:
        """Return the metrics of a compiled model."""
        if self.arrays is None:
            batches = (tuple(batch.values()) for batch in self.batches)
            steps = len(self.batches)
            found = model.evaluate(batches, steps=steps, verbose=0, return_dict=True)
        elif len(self) > batch_size:
            found = model.evaluate(
                **self.arrays, batch_size=batch_size, verbose=0, return_dict=True
            )
        else:
            # `evaluate` makes a pipeline of the data each time, longer work than a small network.
            model.reset_metrics()
            found = model.test_on_batch(**self.arrays, return_dict=True)
        return {name: float(value) for name, value in found.items()}


def collected(x: Nested, y: Nested = None, sample_weight: Nested = None) -> Data:
    """Return arrays, or the batches of an iterable, as NumPy arrays.

    Raises:
        ValueError: labels or weights beside batches, or no batches; inputs, labels and weights of
            several lengths.
    """

    def arrays(part: Nested) -> Nested:
        numbers = isinstance(part, list | tuple) and not any(hasattr(a, "shape") for a in part)
        return np.asarray(part) if numbers else keras.tree.map_structure(np.asarray, part)

    def listed(**given: Nested) -> Config:
        found = {name: arrays(part) for name, part in given.items() if part is not None}
        _check_lengths(found)
        return found

    if hasattr(x, "shape") or isinstance(x, list | tuple | dict):
        return Data(listed(x=x, y=y, sample_weight=sample_weight))
    if y is not None or sample_weight is not None:
        raise ValueError(
            "`y` and `sample_weight` must be None for batches, which hold them. Received: "
            f"batches ({type(x).__name__}) and labels or weights"
        )
    names = ("x", "y", "sample_weight")
    batches = tuple(
        listed(**dict(zip(names, keras.utils.unpack_x_y_sample_weight(batch), strict=True)))
        for batch in x
    )
    if not batches:
        raise ValueError("`x` must hold at least one batch. Received: none.")
    return Data(None, batches)


def _check_lengths(arrays: Config) -> None:
    lengths = {
        (len(array), name)
        for name, part in arrays.items()
        for array in keras.tree.flatten(part)
        if np.ndim(array)
    }
    if len({length for length, _ in lengths}) > 1:
        order = list(arrays)
        listed = sorted(lengths, key=lambda pair: (order.index(pair[1]), pair[0]))
        raise ValueError(
            "Inputs, labels and weights must hold equally many samples. Received: "
            + ", ".join(f"{length} in `{name}`" for length, name in listed)
        )


def _checked_samples(samples: Nested, data: Data) -> int:
    if data.arrays is None:
        raise ValueError("`samples` must be None for batches; give arrays. Received: batches")
    whole = not isinstance(samples, bool) and isinstance(samples, int | np.integer)
    if not whole or not 1 <= samples <= len(data):
        raise ValueError(
            f"`samples` must be None or an integer from 1 to {len(data)}, the samples there are. "
            f"Received: {samples!r}"
        )
    return int(samples)


@dataclasses.dataclass(frozen=True)
class _Work:
    """A model, its data, and the chips to evaluate it on."""

    model: keras.Model
    data: Data
    settings: Config
    chip: Config  # arguments of Chip
    batch_size: int

    def turns(self) -> int:
        """Count the chips that see each sample once; 1 where they do not come out even."""
        samples, total = self.settings.get("samples"), len(self.data)
        return total // samples if samples and total % samples == 0 else 1


class _Evaluator:
    """Evaluate chips of one model, one after the other."""

    def __init__(self, work: _Work) -> None:
        self.work = work
        tiled = isinstance(work.model, AnalogNetwork)
        self.copy = work.model.on_chip() if tiled else copy_model(work.model)
        self.exact: Nested = None
        self.figures: dict[str, float] = {}
        # What the exact network has of the samples of each turn, and more than it has of all.
        self.turns: dict[int, tuple[Data, dict[str, float]]] = {}
        if "samples" in work.settings:
            self.exact = work.model.digital() if tiled else copy_model(work.model)
            self.figures = self._evaluate(self.exact, work.data)

    def __call__(self, number: int) -> tuple[int, list[Row]]:
        work = self.work
        seed = np.random.SeedSequence([work.settings["seed"], number]).generate_state(1)
        # One device for all chips: its compiled functions are made once.
        chip = Chip(work.model, seed=int(seed[0] >> 1), **work.chip)
        data, offsets = self._part(number)
        rows = []
        for t in work.settings["times"]:
            chip.write(self.copy, t)
            metrics = self._evaluate(self.copy, data)
            metrics = {name: value + offsets.get(name, 0.0) for name, value in metrics.items()}
            rows.append({"chip": number, "time": t, **metrics})
        return number, rows

    def _evaluate(self, model: Nested, data: Data) -> dict[str, float]:
        return data.evaluate(model, self.work.batch_size)

    def _part(self, number: int) -> tuple[Data, dict[str, float]]:
        """Return what a chip sees, and what to add to its metrics."""
        work = self.work
        if self.exact is None:
            return work.data, {}
        turn = number % work.turns() if work.turns() > 1 else number
        if turn in self.turns:
            return self.turns[turn]
        data = work.data.of(self._samples(number))
        exact = self._evaluate(self.exact, data)
        found = data, {name: self.figures[name] - value for name, value in exact.items()}
        if work.turns() > 1:
            self.turns[turn] = found
        return found

    def _samples(self, number: int) -> np.ndarray:
        """Return the samples of a chip: the next ones of the data in a drawn order."""
        count, total = self.work.settings["samples"], len(self.work.data)
        order = np.random.default_rng([self.work.settings["seed"], 0x5A3D]).permutation(total)
        return np.sort(order[np.arange(number * count, (number + 1) * count) % total])


def _run(
    work: _Work, numbers: list[int], executor: Executor | None, progress: bool
) -> Generator[tuple[int, list[Row]], None, None]:
    """Yield (number, rows) of every chip, in the order in which they are done."""
    if not numbers:
        return
    chips = [(number,) for number in numbers]
    if executor is None:
        running = _executors.gather(_Evaluator(work), chips)
    else:
        running = _executors.gather(_on_worker, chips, executor, content=_packed(work))
    with bar("chips", len(numbers), progress) as advance, contextlib.closing(running):
        for _, found in running:
            yield found
            advance()


@dataclasses.dataclass(frozen=True)
class _Packed:
    """An evaluation as it travels: no object of Keras, and the modules of classes from outside."""

    model: bytes  # of a .keras file
    modules: tuple[str, ...]
    data: Data
    settings: Config
    chip: dict[str, tuple[str, object]]
    batch_size: int


def _packed(work: _Work) -> _Packed:
    chip = dict(work.chip)
    if chip["faults"]:
        # A model that is loaded may name its matrices otherwise, but has them in the same order.
        names = matrix_names(work.model, chip["embeddings"])
        places = {name: place for place, name in enumerate(names)}
        chip["faults"] = {places.get(name, name): f for name, f in chip["faults"].items()}
    config = _chip_config(chip)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        work.model.save(path)
        model = path.read_bytes()
    configs = [json.loads(work.model.to_json()), work.model.get_compile_config(), config]
    modules = sorted(set(_modules(configs)))
    return _Packed(model, tuple(modules), work.data, work.settings, config, work.batch_size)


def _modules(part: Nested) -> Iterator[str]:
    """Iterate over the modules of the registered classes in a config, but those of Keras."""
    if isinstance(part, dict):
        module = str(part.get("module")) if part.get("registered_name") else "keras"
        if module.split(".")[0] not in ("keras", "builtins", "__main__", "None"):
            yield module
        part = [*part.values()]
    if isinstance(part, list | tuple):
        for entry in part:
            yield from _modules(entry)


def _unpacked(packed: _Packed) -> _Work:
    for module in packed.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise RuntimeError(
                f"A worker cannot import {module}, which has a class of the model or of its "
                f"devices: {error}. Put the module where the workers find it."
            ) from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(packed.model)
        with warnings.catch_warnings():
            # A model that was never trained has an optimizer without its variables.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model = keras.models.load_model(path)
    chip: Config = {
        name: keras.saving.deserialize_keras_object(value) if kind == "keras" else value
        for name, (kind, value) in packed.chip.items()
    }
    if chip["faults"]:
        names = matrix_names(model, chip["embeddings"])
        named = {names[at] if isinstance(at, int) else at: f for at, f in chip["faults"].items()}
        chip["faults"] = named
    return _Work(model, packed.data, packed.settings, chip, packed.batch_size)


# The latest evaluation of this worker, by its content: its compiled functions serve all its chips.
_evaluators: dict[str, _Evaluator] = {}


def _on_worker(packed: _Packed, number: int) -> tuple[int, list[Row]]:
    settings = json.dumps([packed.settings, packed.batch_size], sort_keys=True)
    content = _digest(packed.model, settings.encode())
    if content not in _evaluators:
        _evaluators.clear()
        _evaluators[content] = _Evaluator(_unpacked(packed))
    return _evaluators[content](number)


def _chip_config(chip: Config) -> dict[str, tuple[str, object]]:
    """Put the arguments of Chip in a form that another process can take."""
    return {
        name: ("keras", keras.saving.serialize_keras_object(value))
        if hasattr(value, "get_config")
        else ("plain", value)
        for name, value in chip.items()
    }


def _digest(*parts: bytes | np.ndarray) -> str:
    """Compute the sha256 of bytes and arrays."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype} {part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        digest.update(part)
    return digest.hexdigest()


def _architecture(model: keras.Model) -> str:
    """Return the config of a model with its names numbered.

    Keras's own names count up with every layer that a process has made.
    """
    numbers: dict[str, str] = {}

    def numbered(part: object) -> object:
        if isinstance(part, dict):
            name = part.get("name")
            if isinstance(name, str):
                numbers.setdefault(name, f"#{len(numbers)}")
            return {key: numbered(value) for key, value in part.items()}
        if isinstance(part, list):
            return [numbered(value) for value in part]
        return numbers.get(part, part) if isinstance(part, str) else part

    return json.dumps(numbered(json.loads(model.to_json())))


def _described(value: object) -> object:
    """Return an argument of Chip as JSON, for comparison with that of an earlier run."""
    if isinstance(value, dict):
        return {str(name): _described(part) for name, part in value.items()}
    if isinstance(value, StuckDevices):
        return _digest(value.plus, value.minus)
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    return list(value) if isinstance(value, tuple) else value


def _load(path: str | Path | None, settings: Config) -> dict[int, list[Row]]:
    if path is None or not Path(path).exists():
        return {}
    try:
        stored = json.loads(Path(path).read_text())
        found, rows = stored["settings"], stored["rows"]
        known = stored["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`results` {path} is not a file of chip evaluations: {error!r}"
        ) from error
    wanted = json.loads(json.dumps(settings))
    if not known or found != wanted:
        differing = [name for name in wanted if not known or found.get(name) != wanted[name]]
        raise ValueError(
            f"`results` {path} belongs to another evaluation. Different: {', '.join(differing)}. "
            "Give another path, or remove the file."
        )
    by_chip: dict[int, list[Row]] = {}
    for row in rows:
        by_chip.setdefault(int(row["chip"]), []).append(row)
    return {number: r for number, r in by_chip.items() if len(r) == len(settings["times"])}


def _save(path: str | Path, settings: Config, rows: dict[int, list[Row]]) -> None:
    kept = [row for number in sorted(rows) for row in rows[number]]
    _files.write_json(Path(path), {"format": FORMAT, "settings": settings, "rows": kept})
