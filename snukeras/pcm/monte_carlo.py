"""Monte-Carlo evaluation: one network on many chips, at several times."""

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
import tempfile
import time as clock
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from snukeras import _arguments, _files
from snukeras._terminal import bar
from snukeras._types import Array, Config
from snukeras.network.models import copy_model
from snukeras.pcm.chip import Chip
from snukeras.pcm.devices import GenericPCM, InferencePCM
from snukeras.pcm.faults import StuckDevices
from snukeras.pcm.hardware import Hardware
from snukeras.pcm.pairs import DifferentialPair

FORMAT = "snukeras chip evaluation 2"
HOUR, DAY, YEAR = 3600.0, 86400.0, 31536000.0

#: {"chip": number, "time": seconds, metric: value, ...}
Row = dict[str, float]


def evaluate_chips(
    model: keras.Model,
    x: Array,
    y: Array | None = None,
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
    tile_size: tuple[int, int] = (256, 256),
    wire_resistance: float = 0.0,
    compensation: str | None = None,
    avoid_faults: bool = True,
    hardware: Hardware | None = None,
) -> list[Row]:
    """Evaluate a compiled model on many chips, each with its own devices.

    Chip number i depends on `seed` and i alone, so that the rows do not depend on the number of
    workers or on interruptions.

    Args:
        model: compiled Keras model.
        x, y, sample_weight: arrays for `model.evaluate`.
        chips: number of chips.
        times: seconds since the reference reading (see InferencePCM), in the order of reading.
        seed: int.
        results: path of a JSON file that keeps the rows. If it exists, only chips that it lacks
            are evaluated; it may have been interrupted, or asked for fewer chips.
        workers: processes. With more than one, the calling script needs the usual
            `if __name__ == "__main__":`, and all custom classes of the model must be registered
            by `import snukeras`.
        batch_size: for `model.evaluate`.
        progress: whether to show a progress bar on a terminal.
        device, embeddings, faults, pair, tile_size, wire_resistance, compensation, avoid_faults:
            as for Chip. Converters have no part: they act between products.
        hardware: must be None: a real chip is one chip, with a clock of its own. Use Chip for it.

    Returns:
        A list of dicts {"chip", "time", and the metrics}, by chip, then time.

    Raises:
        ValueError: the model is not compiled; hardware is given; a time is negative; the file has
            the results of another model, other data or other settings.
    """
    if not getattr(model, "compiled", False):
        raise ValueError(
            "Argument `model` must be compiled, with the metrics to evaluate. Received: a model "
            "that is not compiled; call `model.compile` first."
        )
    if hardware is not None:
        raise ValueError("`hardware` cannot be evaluated many times over. Use Chip directly.")
    times = [_arguments.number("times", t, minimum=0.0) for t in times]
    if not times:
        raise ValueError("Argument `times` must hold at least one time in seconds. Received: none.")
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    data = {name: np.asarray(array) for name, array in given.items() if array is not None}
    chip = {
        "device": GenericPCM() if device is None else device,
        "embeddings": embeddings,
        "faults": faults,
        "pair": pair,
        "tile_size": tile_size,
        "wire_resistance": wire_resistance,
        "compensation": compensation,
        "avoid_faults": avoid_faults,
    }
    settings = {
        "seed": int(seed),
        "times": times,
        "model": _digest(_architecture(model).encode(), *model.get_weights()),
        "data": _digest(*data.values()),
        "chip": {name: _described(value) for name, value in sorted(chip.items())},
    }
    work = _Work(model, data, settings, chip, batch_size)
    return _evaluated(work, chips, results, workers, progress)


def _evaluated(
    work: "_Work", chips: int, results: str | Path | None, workers: int, progress: bool
) -> list[Row]:
    """Evaluate the chips that `results` lacks, and keep all rows there."""
    rows = _load(results, work.settings)
    missing = [i for i in range(chips) if i not in rows]
    saved = clock.monotonic()
    try:
        for number, found in _run(work, missing, workers, progress):
            rows[number] = found
            if results is not None and clock.monotonic() - saved > 5.0:
                _save(results, work.settings, rows)
                saved = clock.monotonic()
    finally:
        if results is not None:
            _save(results, work.settings, rows)
    return [row for number in sorted(rows) if number < chips for row in rows[number]]


def summarize(rows: Sequence[Row]) -> dict[float, dict[str, dict[str, float]]]:
    """Return statistics of the rows by time: {time: {metric: {mean, std, min, median, max}}}."""
    summary: dict[float, dict[str, dict[str, float]]] = {}
    for t in sorted({row["time"] for row in rows}):
        chosen = [row for row in rows if row["time"] == t]
        summary[t] = {
            metric: {
                "mean": float(np.mean(values)),
                "std": float(np.std(values)),
                "min": float(np.min(values)),
                "median": float(np.median(values)),
                "max": float(np.max(values)),
            }
            for metric in chosen[0]
            if metric not in ("chip", "time")
            for values in [[row[metric] for row in chosen]]
        }
    return summary


@dataclasses.dataclass(frozen=True)
class _Work:
    """A model, its data, and the chips to evaluate it on."""

    model: keras.Model
    data: dict[str, np.ndarray]
    settings: Config
    chip: Config  # arguments of Chip
    batch_size: int


class _Evaluator:
    """Evaluate chips of one model, one after the other."""

    def __init__(self, work: _Work) -> None:
        self.work, self.copy = work, copy_model(work.model)

    def __call__(self, number: int) -> tuple[int, list[Row]]:
        work = self.work
        seed = np.random.SeedSequence([work.settings["seed"], number]).generate_state(1)
        # One device for all chips: its compiled functions are made once.
        chip = Chip(work.model, seed=int(seed[0] >> 1), **work.chip)
        rows = []
        for t in work.settings["times"]:
            chip.write(self.copy, t)
            metrics = {name: float(value) for name, value in self._evaluate().items()}
            rows.append({"chip": number, "time": t, **metrics})
        return number, rows

    def _evaluate(self) -> dict[str, float]:
        data, batch_size = self.work.data, self.work.batch_size
        if len(data["x"]) > batch_size:
            return self.copy.evaluate(**data, batch_size=batch_size, verbose=0, return_dict=True)
        # `evaluate` makes a pipeline of the data each time, longer work than a small network.
        self.copy.reset_metrics()
        return self.copy.test_on_batch(**data, return_dict=True)


def _run(
    work: _Work, numbers: list[int], workers: int, progress: bool
) -> Iterator[tuple[int, list[Row]]]:
    """Yield (number, rows) of every chip, in the order in which they are done."""
    workers = max(1, min(int(workers), len(numbers)))
    with bar("chips", len(numbers), progress) as advance:
        if workers == 1:
            evaluator = _Evaluator(work)
            for number in numbers:
                yield evaluator(number)
                advance()
            return
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.keras")
            work.model.save(path)
            rest = (work.data, work.settings, _chip_config(work.chip), work.batch_size)
            pool = concurrent.futures.ProcessPoolExecutor(
                workers,
                # TensorFlow does not survive a fork.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(path, rest, workers),
            )
            try:
                futures = [pool.submit(_work, number) for number in numbers]
                for future in concurrent.futures.as_completed(futures):
                    yield future.result()
                    advance()
            finally:
                pool.shutdown(cancel_futures=True)


_evaluator: _Evaluator | None = None  # of this worker process


def _start_worker(path: str, rest: tuple, workers: int) -> None:
    global _evaluator
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        threads = max(1, (os.cpu_count() or 1) // workers)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    model = keras.models.load_model(path)
    data, settings, described, batch_size = rest
    chip = {
        name: keras.saving.deserialize_keras_object(value) if kind == "keras" else value
        for name, (kind, value) in described.items()
    }
    _evaluator = _Evaluator(_Work(model, data, settings, chip, batch_size))


def _work(number: int) -> tuple[int, list[Row]]:
    assert _evaluator is not None
    return _evaluator(number)


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
