"""Compare the int8 file with the float file: outputs, and how often units spike."""

from pathlib import Path

import numpy as np
import onnx

from snukeras.export.folder import INT8 as INT8_FILE
from snukeras.export.folder import ONNX
from snukeras.export.onnx.graph import described
from snukeras.export.onnx.int8 import INT8, calibrate, quantise
from snukeras.export.onnx.trace import add_traces
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import run_onnx, session
from snukeras.export.verify.results import Int8Result, RateResult


def write_int8(folder: Path, mode: str, samples: Samples) -> None:
    """Write the int8 file of a folder beside its float file.

    Args:
        folder: The folder.
        mode: "dynamic" or "static".
        samples: What weights are rounded for, and what "static" finds ranges on.

    Raises:
        BadInputError: The network has no weights to quantise.
    """
    model = onnx.load(folder / ONNX)
    seen = calibrate(model, samples.batches, lambda data, feeds: run_onnx(session(data), feeds))
    proto = quantise(model, mode, seen)
    (folder / INT8_FILE).write_bytes(proto.SerializeToString(deterministic=True))


def compare_int8(
    float_file: Path, int8_file: Path, samples: Samples
) -> tuple[Int8Result, list[np.ndarray]]:
    """Run both files on the samples.

    Args:
        float_file: The file that was compared with Keras.
        int8_file: The quantised file.
        samples: The input.

    Returns:
        The comparison, and the first outputs of the int8 file by batch.

    Raises:
        VerificationError: A file does not say where its units are.
    """
    models = [onnx.load(path) for path in (float_file, int8_file)]
    mode = described(models[1]).get(INT8, "")
    traces = [add_traces(model) for model in models]
    runtimes = [session(model.SerializeToString()) for model in models]
    del models
    sums = {name: np.zeros(3) for name in traces[0]}
    first: list[np.ndarray] = []
    worst, finite, silent = 0.0, True, []
    for feeds in samples.batches:
        found = [run_onnx(runtime, feeds) for runtime in runtimes]
        output = runtimes[0].get_outputs()[0].name
        first.append(found[1][output])
        finite = finite and bool(np.isfinite(found[1][output]).all())
        off = np.abs(found[0][output].astype("float64") - found[1][output])
        worst = max(worst, float(off.max(initial=0.0)))
        for name, count in sums.items():
            values = [out[trace[name].y] for out, trace in zip(found, traces, strict=True)]
            count += [values[0].sum(), values[1].sum(), values[0].size]
    rates = []
    for name, (before, after, size) in sums.items():
        rates.append(RateResult(name, float(before / size), float(after / size)))
        if before > 0 and after == 0:
            silent.append(name)
    return (
        Int8Result(
            ok=finite and not silent,
            mode=mode,
            bytes=int8_file.stat().st_size,
            share=int8_file.stat().st_size / float_file.stat().st_size,
            max_difference=worst if finite else float(np.finfo("float64").max),
            rates=tuple(rates),
            silent=tuple(silent),
        ),
        first,
    )
