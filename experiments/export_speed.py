"""How fast exported networks run in ONNX Runtime, and what a large export costs.

    python -m experiments.export_speed latency
    python -m experiments.export_speed scale
    python -m experiments.export_speed presets --idle

`latency` times networks 88-150-88 at batch 1 on one core: sequences of 100 steps in the exporter's
form and in the one that tf2onnx makes of the same network, in turns, and single steps of the
streaming form. Let nothing else run meanwhile. `scale` exports a network of 60 million weights,
crossbar map and verification included, and reports its time and its memory. `presets` exports every
preset of the zoo with the command, each in a process of its own, start of Python and TensorFlow
included. Beside the time on the clock it reports that of the processor, which other work does not
lengthen; `--idle` says that there is no other work, so that the time on the clock counts as well.
Presets are written one by one; `--only` names some and keeps the figures of the others.
"""

import argparse
import itertools
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import reporting
from experiments.reporting import reported
from snukeras import _files

if TYPE_CHECKING:
    import keras

RESULTS_FOLDER = "export_speed"
KEYS, UNITS, STEPS = 88, 150, 100
NETWORKS = {
    "SNU": ("SNU", False),
    "SNU, recurrent": ("SNU", True),
    "SSNU": ("SSNU", False),
    "SSNU, recurrent": ("SSNU", True),
}
WIDE = (5000, 5000)


def network(cls: str, recurrent: bool) -> "keras.Model":
    """Return a network 88-150-88 of random weights."""
    import keras

    from snukeras import layers

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None, KEYS)),
            # The stepwise form of the layer is the one that tf2onnx can convert.
            getattr(layers, cls)(
                UNITS, recurrent=recurrent, return_sequences=True, implementation="cell"
            ),
            keras.layers.Dense(KEYS, activation="sigmoid"),
        ]
    )


def latency(rounds: int = 300, steps: int = 3000) -> dict[str, Any]:
    """Time all `NETWORKS`; microseconds.

    Args:
        rounds: How often each form runs a sequence; the forms take turns.
        steps: How many single steps of the streaming form are timed.
    """
    import onnxruntime
    import tensorflow as tf

    from snukeras.export.onnx.build import to_onnx
    from snukeras.export.onnx.tf2onnx_call import convert_function

    found: list[dict[str, Any]] = []
    for name, (cls, recurrent) in NETWORKS.items():
        model = network(cls, recurrent)
        signature = [tf.TensorSpec((None, None, KEYS), "float32")]
        forms = {
            "exported": one_thread(to_onnx(model)),
            "tf2onnx": one_thread(convert_function(model, signature)),
        }
        x = (np.random.default_rng(0).random((1, STEPS, KEYS)) < 0.05).astype("float32")
        times: dict[str, list[float]] = {form: [] for form in forms}
        outputs: dict[str, np.ndarray] = {}
        for turn in range(rounds + 20):
            for form, session in forms.items():
                feed = {session.get_inputs()[0].name: x}
                start = time.perf_counter()
                (outputs[form],) = session.run(None, feed)
                if turn >= 20:
                    times[form].append(1e6 * (time.perf_counter() - start))
        found.append(
            {
                "network": name,
                **{form: statistics.median(values) for form, values in times.items()},
                "difference": float(np.abs(outputs["exported"] - outputs["tf2onnx"]).max()),
                "step": _step(one_thread(to_onnx(model, streaming=True)), x[0], steps),
            }
        )
    return {
        "experiment": "latency",
        "onnxruntime": onnxruntime.__version__,
        "processor": processor_name(),
        "steps": STEPS,
        "rounds": rounds,
        "networks": found,
    }


def one_thread(proto: Any) -> Any:
    """Open a session on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _step(session: Any, x: np.ndarray, count: int) -> float:
    """Return the median time of one step in us, its states fed back by the caller as in use."""
    entry, *states = session.get_inputs()
    held = [np.zeros((1, state.shape[1]), "float32") for state in states]
    times = []
    for number in range(count + 100):
        feed = {entry.name: x[None, number % len(x)]}
        feed.update(zip((state.name for state in states), held, strict=True))
        start = time.perf_counter()
        _, *held = session.run(None, feed)
        if number >= 100:
            times.append(1e6 * (time.perf_counter() - start))
    return statistics.median(times)


def scale(widths: tuple[int, ...] = WIDE, features: int = KEYS) -> dict[str, Any]:
    """Export a large network, map and verification included; seconds and bytes.

    Args:
        widths: Units of its two layers of units, the first of them recurrent.
        features: Size of input and output.
    """
    import keras

    from snukeras import export
    from snukeras.layers import PAPER, SNU

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((None, features)),
            SNU(widths[0], recurrent=True, return_sequences=True, name="first", **PAPER),
            SNU(widths[1], return_sequences=True, name="second", **PAPER),
            keras.layers.Dense(2000, activation="relu", name="dense"),
            keras.layers.Dense(features, activation="sigmoid", name="out"),
        ]
    )
    before = _peak()
    stages: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = export.export(
            model,
            Path(folder) / "export",
            target="pcm",
            streaming=True,
            progress=lambda text: stages.append((text, time.perf_counter() - start)),
        )
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in (Path(folder) / "export").iterdir())
    stages.append(("", seconds))
    assert report.map is not None  # "pcm" has one
    return {
        "experiment": "scale",
        "processor": processor_name(),
        "weights": report.map.weights,
        "tiles": report.map.tiles,
        "devices": report.map.devices,
        "verified": report.verification.ok,
        "seconds": seconds,
        "stages": {text: after - at for (text, at), (_, after) in itertools.pairwise(stages)},
        "peak_bytes": _peak(),
        "peak_before_bytes": before,
        "folder_bytes": size,
    }


def presets(
    names: list[str], known: dict[str, Any] | None = None, idle: bool = False
) -> dict[str, Any]:
    """Export presets with the command, each in a process of its own; seconds.

    Args:
        names: The presets.
        known: Results to keep for presets that are not named.
        idle: Whether nothing else runs, so that the time on the clock counts.
    """
    rows = {row["preset"]: row for row in (known or {}).get("presets", ())}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "out"
            command = [sys.executable, "-m", "snukeras.export.command", f"zoo:{name}", "--json"]
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [*command, "--output", str(output)], check=True, stdout=subprocess.DEVNULL
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            report = _files.read_json(output / "report.json")
            rows[name] = {
                "preset": name,
                "weights": report["map"]["weights"],
                "seconds": round(time.perf_counter() - start, 2),
                "idle": idle,
                "processor_seconds": round(
                    after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2
                ),
                "energy_nJ": [report["forecast"]["energy"][key] for key in ("low_nJ", "high_nJ")],
                "metric": report["forecast"]["metric"] is not None,
                "verified": report["verification"]["ok"],
            }
        row = rows[name]
        print(
            f"{name}: {row['seconds']} s, {row['processor_seconds']} s of the processor", flush=True
        )
    return {
        "experiment": "presets",
        "processor": processor_name(),
        "presets": [rows[name] for name in sorted(rows)],
    }


def _peak() -> int:
    """Return the largest memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def processor_name() -> str:
    """Return the processor of this machine and how many cores there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def table(part: str = "latency", root: Path | str | None = None) -> str:
    """Return a table of the results, as Markdown.

    Args:
        part: "latency", "scale" or "presets".
        root: Folder of all results. Default: `experiments/results` of the checkout.
    """
    results = _files.read_json(reporting.folder(RESULTS_FOLDER, root) / f"{part}.json")
    if part == "presets":
        return _presets_table(results)
    if part == "scale":
        lines = [
            "| weights | devices | tiles | time | memory at most | files |",
            "|---|---|---|---|---|---|",
            f"| {results['weights']:,} | {results['devices']:,} | {results['tiles']:,} "
            f"| {results['seconds']:.0f} s | {results['peak_bytes'] / 2**30:.1f} GiB "
            f"| {results['folder_bytes'] / 2**30:.2f} GiB |",
        ]
        return "\n".join(lines) + "\n"
    lines = [
        f"| network 88-150-88 | {results['steps']} steps, exported | the same, tf2onnx alone "
        "| ratio | one step, streaming |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {entry['network']} | {entry['exported']:.0f} us | {entry['tf2onnx']:.0f} us "
        f"| {entry['exported'] / entry['tf2onnx']:.2f} | {entry['step']:.0f} us |"
        for entry in results["networks"]
    ]
    return "\n".join(lines) + "\n"


def _presets_table(results: dict[str, Any]) -> str:
    from snukeras._units import energy_text, range_text

    lines = [
        "| preset | weights on tiles | time on the clock, nothing else running "
        "| time of the processor | energy of a step |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['preset']} | {row['weights']:,} "
        f"| {format(row['seconds'], '.0f') + ' s' if row.get('idle') else '-'} "
        f"| {row['processor_seconds']:.0f} s "
        f"| {range_text(*map(energy_text, row['energy_nJ']))} |"
        for row in results["presets"]
    ]
    return "\n".join(lines) + "\n"


@reported
def main(argv: list[str] | None = None) -> int:
    """Run one part and write its file; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.export_speed", description=__doc__.splitlines()[0]
    )
    parser.add_argument("part", choices=("latency", "scale", "presets"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some presets; keeps the others")
    parser.add_argument(
        "--idle", action="store_true", help="say that nothing else runs: time on the clock counts"
    )
    parser.add_argument(
        "--output", type=Path, help="default: experiments/results/export_speed/PART.json"
    )
    arguments = parser.parse_args(argv)
    if arguments.part == "latency" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core
    path = arguments.output or reporting.folder(RESULTS_FOLDER) / f"{arguments.part}.json"
    if arguments.part == "presets":
        import snukeras.zoo

        known = _files.read_json(path) if arguments.only and path.is_file() else None
        for name in arguments.only or snukeras.zoo.list():
            known = presets([name], known, arguments.idle)
            _files.write_json(path, known)
    else:
        _files.write_json(path, latency() if arguments.part == "latency" else scale())
    print(f"{path} is written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
