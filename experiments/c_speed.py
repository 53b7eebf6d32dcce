"""How fast the C of a preset steps, beside its streaming form in ONNX Runtime.

    python -m experiments.c_speed
    python -m experiments.c_speed --quick

One step of jsb_snu on chorales of its test split, both in one run on one core: the C compiled with
-O3 as a library that is called once for a chorale, and the streaming form on one thread with its
tensors bound beforehand, so that nothing is copied or allocated in a step. They take turns, a
chorale each, whose mean time of a step counts; reported is the median of turns, with the smallest
and the largest ratio of three parts of the run. A graph of one node, bound in the same way, tells
how much of ONNX Runtime's time is the call from Python. Let nothing else run meanwhile.
"""

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting
from experiments.export_speed import one_thread, processor_name
from experiments.reporting import reported
from snukeras import _files

RESULTS_FOLDER = "c_speed"
PRESET = "jsb_snu"
FLAGS = ("-std=c99", "-O3", "-shared", "-fPIC")
PARTS = 3
# Runs a sequence and returns nanoseconds; what the steps put out is kept from being optimised away.
_DRIVER = """
#define _POSIX_C_SOURCE 199309L
#include <time.h>
#include "{model}"

static struct {name} net;

double run(const {kind} *x, {kind} *y, long steps)
{{
    struct timespec before, after;
    long t;
    {name}_reset(&net);
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (t = 0; t < steps; t++) {name}_step(&net, x + t * {inputs}, y + t * {outputs});
    clock_gettime(CLOCK_MONOTONIC, &after);
    return 1e9 * (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec);
}}
"""

# Takes frames (steps, features), returns outputs (steps, ...) and microseconds of a step.
Runner = Callable[[np.ndarray], tuple[np.ndarray, float]]


def measure(songs: int, rounds: int) -> dict[str, Any]:
    """Time all forms in turns; microseconds of a step.

    Args:
        songs: How many chorales of the test split are played.
        rounds: How often each is played.
    """
    import onnxruntime

    from snukeras import zoo
    from snukeras.export.c import compiler, files
    from snukeras.export.network import Network
    from snukeras.export.onnx.build import to_onnx
    from snukeras.export.samples import Samples
    from snukeras.zoo.tasks import TASKS

    model = zoo.load(PRESET)
    part = TASKS[zoo.info(PRESET)["task"]].part()
    samples = Samples.random(Network.read(model)) if part is None else Samples.part(part)
    sequences = [np.ascontiguousarray(feeds[0][0]) for feeds in samples.batches[:songs]]
    made = files.make(Network.read(model), samples, PRESET)
    assert made.integers is not None  # the preset has an int8 form
    bits = [made.integers.bits[made.plan.inputs[0].label]]
    bits.append(made.integers.bits[made.plan.outputs[0].label])
    with tempfile.TemporaryDirectory() as place:
        for name, text in made.files.items():
            (Path(place) / name).write_text(text, encoding="utf-8")
        forms = {
            "c": _compiled(Path(place), made.plan, "model.c", None),
            "c_int8": _compiled(Path(place), made.plan, "model_int8.c", (bits[0], bits[1])),
            "onnx": _bound(one_thread(to_onnx(model, streaming=True))),
            "call": _bound(one_thread(_empty(sequences[0].shape[1]))),
        }
        times = _turns(forms, sequences, rounds)
        first = {form: run(sequences[0])[0] for form, run in forms.items()}
    version = subprocess.run(
        [compiler.find() or "cc", "--version"], capture_output=True, text=True, check=True
    )
    return {
        "experiment": RESULTS_FOLDER,
        "preset": PRESET,
        "samples": samples.kind,
        "processor": processor_name(),
        "compiler": version.stdout.splitlines()[0],
        "flags": " ".join(FLAGS[:2]),
        "onnxruntime": onnxruntime.__version__,
        "songs": len(sequences),
        "rounds": rounds,
        "difference": float(np.abs(first["c"] - first["onnx"]).max()),
        "us": {form: statistics.median(values) for form, values in times.items()},
        "ratios": {form: _ratios(times[form], times["onnx"]) for form in ("c", "c_int8")},
    }


def _turns(
    forms: dict[str, Runner], sequences: list[np.ndarray], rounds: int
) -> dict[str, list[float]]:
    """Let all forms play all sequences in turns; the first round is not counted."""
    times: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(rounds + 1):
        for x in sequences:
            for form, run in forms.items():
                _, took = run(x)
                if turn:
                    times[form].append(took)
    return times


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Return the ratio of medians: of all turns, and the smallest and largest of `PARTS` parts."""
    size = len(ours) // PARTS
    parts = [
        statistics.median(ours[start : start + size])
        / statistics.median(theirs[start : start + size])
        for start in range(0, size * PARTS, size)
    ]
    return [statistics.median(ours) / statistics.median(theirs), min(parts), max(parts)]


def _compiled(place: Path, plan: Any, model: str, bits: tuple[int, int] | None) -> Runner:
    """Compile a model as a library; with `bits`, those of inputs and outputs, of integers."""
    from snukeras.export.c import compiler, quantise

    kind, dtype = ("float", "float32") if bits is None else ("int16_t", "int16")
    inputs, outputs = plan.inputs[0].size, plan.outputs[0].size
    text = _DRIVER.format(model=model, name=plan.name, kind=kind, inputs=inputs, outputs=outputs)
    source = place / f"run_{model}"
    source.write_text(text, encoding="utf-8")
    library = source.with_suffix(".so")
    found = compiler.find()
    if found is None:
        raise ValueError("There is no C compiler; install gcc or clang, or name one in CC.")
    subprocess.run([found, *FLAGS, str(source), "-o", str(library), "-lm"], check=True)
    function = ctypes.CDLL(str(library)).run
    function.restype = ctypes.c_double
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]

    def run(x: np.ndarray) -> tuple[np.ndarray, float]:
        given = x if bits is None else quantise.fixed(x, bits[0])
        y = np.empty((len(x), outputs), dtype)
        took = function(given.ctypes.data, y.ctypes.data, len(x))
        return (y if bits is None else y / 2.0 ** bits[1]), 1e-3 * took / len(x)

    return run


def _bound(session: Any) -> Runner:
    """Bind the tensors of a streaming form; its states go from one buffer to another and back."""
    entry, *states = session.get_inputs()
    exit_, *after = session.get_outputs()
    x = np.zeros((1, entry.shape[1]), "float32")
    y = np.zeros((1, exit_.shape[1]), "float32")
    held = [[np.zeros((1, state.shape[1]), "float32") for state in states] for _ in range(2)]

    def bind(given: list[np.ndarray], left: list[np.ndarray]) -> Any:
        binding = session.io_binding()
        for end, array in zip((entry, *states), (x, *given), strict=True):
            binding.bind_input(end.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for end, array in zip((exit_, *after), (y, *left), strict=True):
            binding.bind_output(end.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return binding

    bindings = [bind(held[0], held[1]), bind(held[1], held[0])]

    def run(frames: np.ndarray) -> tuple[np.ndarray, float]:
        outputs, took = np.empty((len(frames), y.shape[1]), "float32"), 0.0
        for state in (*held[0], *held[1]):
            state[:] = 0.0
        for number, frame in enumerate(frames):
            x[0] = frame
            start = time.perf_counter()
            session.run_with_iobinding(bindings[number % 2])
            took += time.perf_counter() - start
            outputs[number] = y[0]
        return outputs, 1e6 * took / len(frames)

    return run


def _empty(features: int) -> Any:
    """Return a graph of one node that hands its input on."""
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, features]) for name in "xy"
    ]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "empty", ends[:1], ends[1:])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def table(root: Path | str | None = None) -> str:
    """Return the figures as Markdown.

    Args:
        root: Folder of all results. Default: `experiments/results` of the checkout.
    """
    path = reporting.folder(RESULTS_FOLDER, root) / f"{PRESET}.json"
    if not path.is_file():
        return "Not measured yet.\n"
    results = _files.read_json(path)
    rows = [
        ("C, float32", "c"),
        ("C, int8", "c_int8"),
        ("ONNX Runtime, streaming form, bound tensors", "onnx"),
        ("ONNX Runtime, a graph of one node", "call"),
    ]
    lines = [f"| one step of {PRESET} | time | of ONNX Runtime's step |", "|---|---|---|"]
    for title, form in rows:
        ratio = "-"
        if form in results["ratios"]:
            middle, low, high = results["ratios"][form]
            ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"| {title} | {results['us'][form]:.2f} us | {ratio} |")
    return "\n".join(lines) + "\n"


@reported
def main(argv: list[str] | None = None) -> int:
    """Measure and write the file; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.c_speed", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="few turns, shown and not written")
    parser.add_argument(
        "--output", type=Path, help=f"default: experiments/results/{RESULTS_FOLDER}/{PRESET}.json"
    )
    arguments = parser.parse_args(argv)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core
    if arguments.quick:
        found = measure(songs=4, rounds=6)
        print(found["us"], found["ratios"])
        return 0
    path = arguments.output or reporting.folder(RESULTS_FOLDER) / f"{PRESET}.json"
    _files.write_json(path, measure(songs=20, rounds=30))
    print(f"{path} is written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
