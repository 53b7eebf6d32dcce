"""The speed of the layers beside Keras and other libraries, from the results of the benchmark.

    python -m benchmark --output

measures (with --scaling, --memory and --profile the other parts); the tables here read its file.
Those of the backends read another, measured with Adam:

    python -m benchmark --optimizer adam --threads all --rounds 3 --burst 0.3
        --contestants "snukeras SNU" "snukeras SNU, jit" "snukeras SNU on*"
        "snukeras SNU recurrent" "snukeras SNU recurrent, jit" "snukeras SNU recurrent on*"
        "keras LSTM" "keras LSTM on*" "torch LSTM" "spyx*" "snntorch*" "spikingjelly*"
        --output benchmark/results/backends.json
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmark import report

FILE = Path(__file__).resolve().parent / "results" / "benchmark.json"
BACKENDS = FILE.with_name("backends.json")
GPU = FILE.with_name("gpu.json")
PEERS = ("spyx", "jax", "snntorch", "spikingjelly", "norse")
# The step of a training or inference at most as long as this part of torch LSTM's.
BARS = {
    ("88-150-88", "train"): 0.20,
    ("88-150-88", "inference"): 0.20,
    ("784-256-256-10", "train"): 0.15,
    ("784-256-256-10", "inference"): 0.20,
}
_FLOORS = 2.0
_LSTMS = 3.0
_THREADS = ("one", "all")


def table(part: str = "short", file: Path | str | None = None) -> str:
    """Return a table of the benchmark's results, as Markdown.

    Args:
        part: "short" (this package beside others), "one" or "all" (everybody, by threads), "bars"
            (what was aimed at and what was measured), "scaling", "memory", "profile"; "backends"
            (TensorFlow, JAX and torch in one), "aims" (what was aimed at there).
        file: Results of `python -m benchmark`; those of the checkout by default.
    """
    default = BACKENDS if part in ("backends", "aims") else FILE
    results = report.load(default if file is None else Path(file))
    parts: dict[str, Callable[[], str]] = {
        "short": lambda: _short(results["speed"]),
        "bars": lambda: _bars(results["speed"]),
        "one": lambda: report.markdown(results, "one"),
        "all": lambda: report.markdown(results, "all"),
        "scaling": lambda: report.markdown(results, "scaling"),
        "memory": lambda: report.markdown(results, "memory"),
        "profile": lambda: report.markdown(results, "profile"),
        "backends": lambda: report.markdown(results, "all"),
        "aims": lambda: _backend_aims(results["speed"]),
    }
    if part not in parts:
        raise ValueError(f"Argument `part` must be one of {list(parts)}. Received: part={part!r}")
    return parts[part]()


def _rows(speed: dict, case: tuple[str, str], threads: str, *libraries: str) -> list[dict]:
    """Return the rows in float32 of a network and work, Keras on TensorFlow."""
    return [
        row
        for row in speed["rows"]
        if (row["network"], row["work"]) == case
        and row["threads"] == threads
        and row["precision"] == "float32"
        and row["library"] in libraries
        and not row["framework"].startswith("keras-")
    ]


def _unit(rows: Iterable[dict], unit: str, jit_compile: bool | None = None) -> dict | None:
    """Return the fastest row of a unit; with `jit_compile` of that setting alone."""
    found = [
        row
        for row in rows
        if row["unit"] == unit and (jit_compile is None or row["jit_compile"] == jit_compile)
    ]
    return min(found, key=lambda row: row["milliseconds"], default=None)


def _short(speed: dict[str, Any]) -> str:
    """Return ratios to torch LSTM of this package, Keras's LSTM and the fastest peer."""
    header = ["one thread, torch LSTM = 1", *(f"{n}, {w}" for n, w in BARS)]
    lines: dict[str, list[str]] = {}
    for case in BARS:
        mine = _rows(speed, case, "one", "snukeras")
        keras = _rows(speed, case, "one", "keras")
        peers = _rows(speed, case, "one", *PEERS)
        cells = {
            "`SNU`, as `compile` sets it": _ratio(_unit(mine, "SNU", False)),
            "`SNU`, `jit_compile=True`": _ratio(_unit(mine, "SNU", True)),
            "`SNU(recurrent=True)`": _ratio(_unit(mine, "SNU recurrent", False)),
            "fastest other spiking library": _named(peers),
            "`keras.layers.LSTM`": _ratio(_unit(keras, "LSTM", False)),
        }
        for label, cell in cells.items():
            lines.setdefault(label, []).append(cell)
    return report.markdown_table(header, [[label, *cells] for label, cells in lines.items()])


def ratios(threads: str = "one", file: Path | str | None = None) -> dict[str, list[float]]:
    """Return times of a step as shares of torch LSTM's, for each case of BARS.

    Args:
        threads: "one" or "all".
        file: Results of `python -m benchmark`; those of the checkout by default.

    Returns:
        By contestant: this package's units and Keras's LSTM, with the faster of jit_compile on and
        off, and the fastest of the other libraries for each case.
    """
    speed = report.load(FILE if file is None else Path(file))["speed"]
    found: dict[str, list[float]] = {}
    for case in BARS:
        mine = _rows(speed, case, threads, "snukeras")
        best = {
            "SNU": _unit(mine, "SNU"),
            "SNU, recurrent": _unit(mine, "SNU recurrent"),
            "fastest other spiking library": min(
                _rows(speed, case, threads, *PEERS),
                key=lambda row: float(row["milliseconds"]),
                default=None,
            ),
            "Keras's LSTM": _unit(_rows(speed, case, threads, "keras"), "LSTM"),
        }
        for label, row in best.items():
            found.setdefault(label, []).append(float(row["ratio"]) if row else math.nan)
    return found


def _ratio(row: dict | None) -> str:
    return "" if row is None or row["ratio"] is None else f"{row['ratio']:.2f}"


def _named(rows: list[dict]) -> str:
    best = min(rows, key=lambda row: row["milliseconds"], default=None)
    return f"{_ratio(best)} ({best['library']})" if best else ""


def _bars(speed: dict[str, Any]) -> str:
    """Return each aim with what was measured: one thread and all, jit_compile off and on."""
    body = []
    for aim, measure, case, low, high in _aims():
        line, verdicts = [aim], []
        for threads in _THREADS:
            values = [measure(speed, case, threads, jit) for jit in (False, True)]
            line.append(" / ".join("" if value is None else f"{value:.2f}" for value in values))
            verdicts.append(any(value is not None and low <= value <= high for value in values))
        if len(set(verdicts)) == 1:
            line.append("yes" if verdicts[0] else "no")
        else:
            line.append("with one thread" if verdicts[0] else "with all threads")
        body.append(line)
    header = ["aim", "one thread, jit off / on", "all threads, jit off / on", "reached"]
    return report.markdown_table(header, body)


def _aims() -> Iterable[tuple[str, Callable[..., float | None], tuple[str, str], float, float]]:
    """Yield each aim in words, what to measure, on which case, and between which limits."""
    for case, bar in BARS.items():
        yield f"{' '.join(case)}: at most {bar:.2f} of torch LSTM", _of_base, case, 0.0, bar
    for case in BARS:
        yield f"{' '.join(case)}: fastest peer takes as long or longer", _peers, case, 1.0, math.inf
    for case in BARS:
        if case[0] == "784-256-256-10":
            yield f"{' '.join(case)}: at most {_FLOORS:g} floors", _floors, case, 0.0, _FLOORS
    for case in BARS:
        if case[1] == "train":
            aim = f"{' '.join(case)}, recurrent: keras LSTM takes {_LSTMS:g} times as long"
            yield aim, _lstms, case, _LSTMS, math.inf


def _of_base(speed: dict, case: tuple[str, str], threads: str, jit: bool) -> float | None:
    """Return the time of our step as a share of that of torch LSTM."""
    row = _unit(_rows(speed, case, threads, "snukeras"), "SNU", jit)
    return row["ratio"] if row else None


def _quotient(above: dict | None, below: dict | None) -> float | None:
    return above["milliseconds"] / below["milliseconds"] if above and below else None


def _peers(speed: dict, case: tuple[str, str], threads: str, jit: bool) -> float | None:
    """Return how many of our steps a step of the fastest peer takes."""
    peers = _rows(speed, case, threads, *PEERS)
    best = min(peers, key=lambda row: row["milliseconds"], default=None)
    return _quotient(best, _unit(_rows(speed, case, threads, "snukeras"), "SNU", jit))


def _floors(speed: dict, case: tuple[str, str], threads: str, jit: bool) -> float | None:
    """Return the time of our step as a multiple of that of its matrix products alone."""
    floors = [
        floor
        for floor in speed["floors"]
        if (floor["network"], floor["work"]) == case
        and (floor["threads"], floor["precision"], floor["recurrent"])
        == (threads, "float32", False)
    ]
    mine = _unit(_rows(speed, case, threads, "snukeras"), "SNU", jit)
    return _quotient(mine, floors[0]) if floors else None


def _lstms(speed: dict, case: tuple[str, str], threads: str, jit: bool) -> float | None:
    """Return how many of our recurrent steps a step of Keras's LSTM takes, jit_compile alike."""
    return _quotient(
        _unit(_rows(speed, case, threads, "keras"), "LSTM", jit),
        _unit(_rows(speed, case, threads, "snukeras"), "SNU recurrent", jit),
    )


# The unit of this package on a backend, what it is to be faster than (or at most so many times as
# slow as), and the least quotient of the two times.
_BACKEND_AIMS = (
    ("SNU", "keras-jax", ("spyx",), 1.0),
    ("SNU recurrent", "keras-jax", ("tensorflow",), 1 / 1.15),
    ("SNU", "keras-torch", ("snntorch", "spikingjelly"), 1.0),
)


def _backend_aims(speed: dict[str, Any]) -> str:
    """Return how many of our steps on a backend take as long as one of another, by network."""
    cases = [case for case in BARS if any((r["network"], r["work"]) == case for r in speed["rows"])]
    body = []
    for unit, framework, others, least in _BACKEND_AIMS:
        for other in others:
            line, reached = [_aim(unit, framework, other, least)], True
            for case in cases:
                here = [r for r in speed["rows"] if (r["network"], r["work"]) == case]
                here = [r for r in here if r["precision"] == "float32" and r["threads"] == "all"]
                mine = _unit([r for r in here if r["framework"] == framework], unit)
                if other == "tensorflow":
                    beside = _unit([r for r in here if r["framework"] == other], unit, False)
                else:
                    beside = next((r for r in here if r["library"] == other), None)
                quotient = _quotient(beside, mine)
                line.append("" if quotient is None else f"{quotient:.2f}")
                reached &= quotient is not None and quotient >= least
            body.append([*line, "yes" if reached else "no"])
    header = ["time of the other / ours", *(" ".join(case) for case in cases), "reached"]
    return report.markdown_table(header, body)


def _aim(unit: str, framework: str, other: str, least: float) -> str:
    backend = framework.removeprefix("keras-")
    beside = "TensorFlow's path" if other == "tensorflow" else other
    wanted = "more than 1" if least == 1.0 else f"at least {least:.2f}"
    return f"`{unit}` on {backend}, {beside}: {wanted}".replace(
        "`SNU recurrent`", "recurrent `SNU`"
    )
