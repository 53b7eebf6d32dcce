"""Monte-Carlo evaluation: one network on many chips, at several times."""

import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import tempfile
import time as clock
from pathlib import Path

import keras
import numpy as np

from snukeras import _files
from snukeras.network.models import copy_model
from snukeras.pcm._arrays import check_number
from snukeras.pcm.chip import Chip
from snukeras.pcm.devices import GenericPCM
from snukeras.pcm.faults import StuckDevices

FORMAT = "snukeras chip evaluation 1"
HOUR, DAY, YEAR = 3600.0, 86400.0, 31536000.0


def evaluate_chips(
    model,
    x,
    y=None,
    sample_weight=None,
    chips=100,
    times=(25.0, HOUR, DAY, YEAR),
    seed=0,
    results=None,
    workers=1,
    batch_size=32,
    progress=True,
    **chip,
):
    """Evaluates a compiled model on many chips, each with its own devices.

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
        **chip: arguments of Chip: device, pair, compensation, ... (not hardware).

    Returns:
        A list of dicts {"chip", "time", and the metrics}, by chip, then time.

    Raises:
        ValueError: the model is not compiled; a time is negative; the file has the results of
            another model, other data or other settings.
    """
    if not getattr(model, "compiled", False):
        raise ValueError("`model` must be compiled, with the metrics to evaluate. Received: not.")
    if "hardware" in chip:
        raise ValueError("`hardware` cannot be evaluated many times over. Use Chip directly.")
    times = [check_number("times", t, minimum=0.0) for t in times]
    if not times:
        raise ValueError("`times` must hold at least one time in seconds. Received: none.")
    data = {"x": x, "y": y, "sample_weight": sample_weight}
    data = {name: np.asarray(array) for name, array in data.items() if array is not None}
    settings = {
        "seed": int(seed),
        "times": times,
        "model": _digest(_architecture(model).encode(), *model.get_weights()),
        "data": _digest(*data.values()),
        "chip": {name: _described(value) for name, value in sorted(chip.items())},
    }
    rows = _load(results, settings)
    missing = [i for i in range(chips) if i not in rows]
    saved = clock.monotonic()
    try:
        for number, found in _run(
            model, data, missing, settings, chip, batch_size, workers, progress
        ):
            rows[number] = found
            if results is not None and clock.monotonic() - saved > 5.0:
                _save(results, settings, rows)
                saved = clock.monotonic()
    finally:
        if results is not None:
            _save(results, settings, rows)
    return [row for number in sorted(rows) if number < chips for row in rows[number]]


def summarize(rows):
    """Statistics of the rows by time: {time: {metric: {mean, std, min, median, max}}}."""
    summary = {}
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


class _Evaluator:
    """Evaluates chips of one model, one after the other."""

    def __init__(self, model, data, settings, chip, batch_size):
        self.model, self.copy = model, copy_model(model)
        # One device for all chips: its compiled functions are made once.
        self.data, self.settings, self.chip = data, settings, {"device": GenericPCM(), **chip}
        self.batch_size = batch_size

    def __call__(self, number):
        seed = np.random.SeedSequence([self.settings["seed"], number]).generate_state(1)
        chip = Chip(self.model, seed=int(seed[0] >> 1), **self.chip)
        rows = []
        for t in self.settings["times"]:
            chip.write(self.copy, t)
            metrics = {name: float(value) for name, value in self._evaluate().items()}
            rows.append({"chip": number, "time": t, **metrics})
        return number, rows

    def _evaluate(self):
        if len(self.data["x"]) > self.batch_size:
            return self.copy.evaluate(
                **self.data, batch_size=self.batch_size, verbose=0, return_dict=True
            )
        # `evaluate` makes a pipeline of the data each time, longer work than a small network.
        self.copy.reset_metrics()
        return self.copy.test_on_batch(**self.data, return_dict=True)


def _run(model, data, numbers, settings, chip, batch_size, workers, progress):
    """Yields (number, rows) of every chip, in the order in which they are done."""
    workers = max(1, min(int(workers), len(numbers)))
    with _Bar(len(numbers), progress) as advance:
        if workers == 1:
            evaluator = _Evaluator(model, data, settings, chip, batch_size) if numbers else None
            for number in numbers:
                yield evaluator(number)
                advance()
            return
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.keras")
            model.save(path)
            pool = concurrent.futures.ProcessPoolExecutor(
                workers,
                # TensorFlow does not survive a fork.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(path, data, settings, _chip_config(chip), batch_size, workers),
            )
            try:
                futures = [pool.submit(_work, number) for number in numbers]
                for future in concurrent.futures.as_completed(futures):
                    yield future.result()
                    advance()
            finally:
                pool.shutdown(cancel_futures=True)


_evaluator = None  # of this worker process


def _start_worker(path, data, settings, chip, batch_size, workers):
    global _evaluator
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        threads = max(1, (os.cpu_count() or 1) // workers)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    model = keras.models.load_model(path)
    chip = {
        name: keras.saving.deserialize_keras_object(value) if kind == "keras" else value
        for name, (kind, value) in chip.items()
    }
    _evaluator = _Evaluator(model, data, settings, chip, batch_size)


def _work(number):
    return _evaluator(number)


def _chip_config(chip):
    """Arguments of Chip in a form that another process can take."""
    return {
        name: ("keras", keras.saving.serialize_keras_object(value))
        if hasattr(value, "get_config")
        else ("plain", value)
        for name, value in chip.items()
    }


class _Bar:
    """A progress bar on a terminal; gives a function that advances it."""

    def __init__(self, total, show):
        self.total, self.show = total, show

    def __enter__(self):
        if not self.show or not self.total:
            self.progress = None
            return lambda: None
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        console = Console(stderr=True)
        self.progress = Progress(
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.progress.start()
        task = self.progress.add_task("chips", total=self.total)
        return lambda: self.progress.advance(task)

    def __exit__(self, *_):
        if self.progress is not None:
            self.progress.stop()


def _digest(*parts):
    """sha256 of bytes and arrays."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype} {part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        digest.update(part)
    return digest.hexdigest()


def _architecture(model):
    """The config of a model with its names numbered.

    Keras's own names count up with every layer that a process has made.
    """
    numbers: dict[str, str] = {}

    def numbered(part):
        if isinstance(part, dict):
            name = part.get("name")
            if isinstance(name, str):
                numbers.setdefault(name, f"#{len(numbers)}")
            return {key: numbered(value) for key, value in part.items()}
        if isinstance(part, list):
            return [numbered(value) for value in part]
        return numbers.get(part, part) if isinstance(part, str) else part

    return json.dumps(numbered(json.loads(model.to_json())))


def _described(value):
    """An argument of Chip as JSON, for comparison with that of an earlier run."""
    if isinstance(value, dict):
        return {str(name): _described(part) for name, part in value.items()}
    if isinstance(value, StuckDevices):
        return _digest(value.plus, value.minus)
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    return list(value) if isinstance(value, tuple) else value


def _load(path, settings):
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
    by_chip: dict[int, list] = {}
    for row in rows:
        by_chip.setdefault(int(row["chip"]), []).append(row)
    return {number: r for number, r in by_chip.items() if len(r) == len(settings["times"])}


def _save(path, settings, rows):
    kept = [row for number in sorted(rows) for row in rows[number]]
    _files.write_json(Path(path), {"format": FORMAT, "settings": settings, "rows": kept})
