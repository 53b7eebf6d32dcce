"""Measure: all contestants in turn, the cost over sizes, and the memory of training."""

import datetime
import functools
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmark.contestants import BASES, PROFILE, Contestant, versions
from benchmark.networks import WORKS, Network
from benchmark.worker import Worker, WorkerError, processors

RATES = {"sgd": 0.5, "adam": 0.01}
# One size is varied at a time about these.
_CENTRE = {"steps": 100, "units": 150, "batch": 16}
SCALES: dict[str, tuple[int, ...]] = {
    "steps": (10, 32, 100, 320, 1_000, 3_200, 10_000),
    "units": (64, 128, 256, 512, 1_024, 2_048, 4_096),
    "batch": (1, 4, 16, 64, 256, 1_024),
}
MEMORY_STEPS = (2_500, 5_000, 10_000)

Progress = Callable[[str], None]


def provenance(**settings: Any) -> dict[str, Any]:
    """Return where and when results come from; no names of hosts or folders."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "processors": processors(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions(),
        "settings": settings,
    }


def processor() -> str:
    """Return the name of the processor, as well as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def speed(
    contestants: Sequence[Contestant],
    networks: Sequence[Network],
    works: Sequence[str] = WORKS,
    threads: Sequence[str] = ("one", "all"),
    rounds: int = 5,
    burst: float = 0.5,
    optimizer: str = "sgd",
    learn: int = 10,
    progress: Progress = print,
    device: str = "cpu",
    anyway: bool = False,
) -> dict[str, Any]:
    """Time every contestant on every network, in alternating bursts.

    Args:
        contestants: Who takes part.
        networks: What they train and run.
        works: Of "train", "inference".
        threads: Of "one", "all".
        rounds: Bursts of each contestant; the median counts.
        burst: Length of a burst in s.
        optimizer: "sgd" or "adam".
        learn: Training steps of the warm-up, over which the loss has to fall.
        progress: Told what is being done.
        device: "cpu", or "gpu"; "gpu" stands in the place of `threads` then.
        anyway: Whether to go on without a GPU, on the processor, to see that all runs.

    Returns:
        Provenance, `rows` (one per contestant, network, work and threads, with the median time of
        a step in ms and its ratio to the base), `floors`, and `failures`. Of a GPU `accelerator`,
        its name, too.

    Raises:
        ValueError: No framework sees a GPU.
    """
    rows: list[dict] = []
    failures: list[dict] = []
    seen: dict[str, str] = {}
    for setting in ("gpu",) if device == "gpu" else threads:
        with _Workers(setting) as workers:
            if device == "gpu":
                seen = _seen(workers, {c.framework for c in contestants}, anyway)
                failures += [
                    {"contestant": c.name, "reason": f"{c.framework} sees no GPU"}
                    for c in contestants
                    if c.framework not in seen
                ]
                contestants = [c for c in contestants if c.framework in seen]
            for network in networks:
                for work in works:
                    case = {"network": network.name, "work": work, "threads": setting}
                    title = f"{network.name}, {work}, {setting} thread: "
                    found, failed = _race(
                        workers, contestants, network, work, rounds, burst, optimizer, learn,
                        functools.partial(_titled, progress, title),
                    )  # fmt: skip
                    rows += _with_ratios([{**case, **row} for row in found])
                    failures += [{**case, **failure} for failure in failed]
    settings = {"rounds": rounds, "burst_seconds": burst, "optimizer": optimizer}
    return {
        **provenance(**settings, networks=[n.to_json() for n in networks]),
        **({"accelerator": ", ".join(sorted({*seen.values()}))} if device == "gpu" else {}),
        "rows": [row for row in rows if not row["floor"]],
        "floors": _floors(rows, networks),
        "failures": failures,
    }


def _seen(workers: "_Workers", frameworks: set[str], anyway: bool) -> dict[str, str]:
    """Return the names of GPUs by framework; with `anyway`, and without a GPU, none for all."""
    found = {name: workers[name].ask("accelerator") for name in sorted(frameworks)}
    seen = {name: device for name, device in found.items() if device is not None}
    if not seen and not anyway:
        raise ValueError(
            f"There is no GPU that {', '.join(found)} can use. Leave --device gpu out to measure "
            "the processor, or add --quick to see that all runs."
        )
    return seen or dict.fromkeys(found, "no GPU")


def _titled(progress: Progress, title: str, words: str) -> None:
    progress(title + words)


def profile(
    networks: Sequence[Network],
    threads: Sequence[str] = ("one", "all"),
    rounds: int = 5,
    burst: float = 0.5,
    progress: Progress = print,
) -> dict[str, Any]:
    """Time a step of inference of an SNU network and its parts, in alternating bursts.

    Args:
        networks, threads, rounds, burst, progress: As in `speed`.

    Returns:
        Provenance, and `rows`: one per network, threads and jit_compile, with the milliseconds of
        the whole step, and of its products and scans without those of a bare call.
    """
    rows: list[dict] = []
    for setting in threads:
        with _Workers(setting) as workers:
            for network in networks:
                title = f"profile of {network.name}, {setting} thread: "
                found, failed = _race(
                    workers, PROFILE, network, "inference", rounds, burst, "sgd", 1,
                    functools.partial(_titled, progress, title),
                )  # fmt: skip
                if failed:
                    raise ValueError(f"The profile failed: {failed[0]['reason']}")
                for jit in (False, True):
                    taken = {r["unit"]: r["milliseconds"] for r in found if r["jit_compile"] == jit}
                    call = taken["call"]
                    rows.append(
                        {
                            "network": network.name,
                            "threads": setting,
                            "jit_compile": jit,
                            "whole": taken["SNU"],
                            "call": call,
                            **{unit: taken[unit] - call for unit in ("products", "scans")},
                        }
                    )
    return {**provenance(rounds=rounds, burst_seconds=burst), "rows": rows}


class _Workers(ExitStack):
    """The running workers by framework, started when first needed."""

    def __init__(self, threads: str):
        super().__init__()
        self.threads, self.device = threads, "gpu" if threads == "gpu" else "cpu"
        self._running: dict[str, Worker] = {}

    def __getitem__(self, framework: str) -> Worker:
        if framework not in self._running or not self._running[framework].alive:
            worker = Worker(framework, self.threads, self.device)
            self._running[framework] = self.enter_context(worker)
        return self._running[framework]


def _race(
    workers: _Workers,
    contestants: Sequence[Contestant],
    network: Network,
    work: str,
    rounds: int,
    burst: float,
    optimizer: str,
    learn: int,
    progress: Progress,
) -> tuple[list[dict], list[dict]]:
    """Measure all contestants on one network and work; return rows and failures."""
    failures: list[dict] = []
    prepared: dict[Contestant, dict] = {}
    for framework in dict.fromkeys(c.framework for c in contestants):
        waiting = [c for c in contestants if c.framework == framework]
        ready: dict[Contestant, dict] = {}
        while len(ready) < len(waiting):
            contestant = next(c for c in waiting if c not in ready)
            progress(f"preparing {contestant.name}")
            try:
                ready[contestant] = workers[framework].ask(
                    "prepare",
                    key=contestants.index(contestant),
                    contestant=contestant.to_json(),
                    network=network.to_json(),
                    work=work,
                    optimizer=optimizer,
                    rate=RATES[optimizer],
                    learn=learn,
                    burst=burst,
                )
            except WorkerError as error:
                failures.append({"contestant": contestant.name, "reason": str(error)})
                waiting.remove(contestant)
                if not workers[framework].alive:
                    ready = {}  # a new process has to prepare them again
        prepared |= ready
    seconds: dict[Contestant, list[float]] = {c: [] for c in prepared}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        # Back and forth, so that a drift of the machine's speed falls on all alike.
        order = list(prepared) if number % 2 == 0 else list(prepared)[::-1]
        for contestant in order:
            seconds[contestant].append(
                workers[contestant.framework].ask(
                    "burst",
                    key=contestants.index(contestant),
                    steps=prepared[contestant]["steps"],
                )
            )
    for framework in {c.framework for c in prepared}:
        workers[framework].ask("forget")
    rows = []
    for contestant, times in seconds.items():
        first, last = prepared[contestant]["losses"]
        rows.append(
            {
                "contestant": contestant.name,
                **contestant.to_json(),
                "floor": contestant.is_floor,
                "milliseconds": 1e3 * statistics.median(times),
                "fastest_milliseconds": 1e3 * min(times),
                "slowest_milliseconds": 1e3 * max(times),
                "loss_before": None if contestant.is_floor else first,
                "loss_after": None if contestant.is_floor else last,
            }
        )
    return rows, failures


def _with_ratios(rows: list[dict]) -> list[dict]:
    """Add the ratios to the base to rows of one network, work and thread setting."""
    by_name = {row["contestant"]: row for row in rows}
    base = next((name for name in BASES if name in by_name), None)
    for row in rows:
        row["base"] = base
        row["ratio"] = row["milliseconds"] / by_name[base]["milliseconds"] if base else None
    return rows


def _floors(rows: list[dict], networks: Sequence[Network]) -> list[dict]:
    """Return the time of the bare products by the fastest engine that was measured."""
    by_name = {network.name: network for network in networks}
    best: dict[tuple, dict] = {}
    for row in rows:
        if row["floor"]:
            key = tuple(row[n] for n in ("network", "work", "threads", "precision", "unit"))
            if key not in best or row["milliseconds"] < best[key]["milliseconds"]:
                best[key] = row
    floors = []
    for (name, work, threads, precision, unit), row in best.items():
        recurrent = unit.endswith("recurrent")
        flops = by_name[name].flops(work, recurrent)
        floors.append(
            {
                "network": name,
                "work": work,
                "threads": threads,
                "precision": precision,
                "recurrent": recurrent,
                "engine": row["contestant"],
                "flops": flops,
                "flops_per_second": flops / (row["milliseconds"] / 1e3),
                "milliseconds": row["milliseconds"],
                "ratio": row["ratio"],
            }
        )
    return floors


def scaling(
    scales: Mapping[str, Sequence[int]] = SCALES,
    works: Sequence[str] = WORKS,
    rounds: int = 3,
    burst: float = 0.5,
    budget: float = 600.0,
    progress: Progress = print,
) -> dict[str, Any]:
    """Time an SNU network over the steps, the units and the batch, one varied at a time.

    The network has 88 inputs, one layer of SNUs and 88 outputs.

    Args:
        scales: Sizes by axis ("steps", "units", "batch").
        works, rounds, burst, progress: As in `speed`.
        budget: s; sizes that would not end within it are left out, and listed as such.

    Returns:
        Provenance, `rows` (with ms per step, and ns per sample, time step and unit), `left_out`.
    """
    contestant = Contestant("tensorflow", "snukeras", "SNU", False)
    rows, left_out = [], []
    start = time.monotonic()
    # Each axis and work has an equal part of the budget; what one leaves is the next one's.
    parts = [(axis, work) for axis in scales for work in works]
    for number, (axis, work) in enumerate(parts):
        deadline = start + budget * (number + 1) / len(parts)
        ready: dict[int, dict] = {}
        seconds: dict[int, list[float]] = {}
        networks = {size: _scaled(**{**_CENTRE, axis: size}) for size in scales[axis]}
        with Worker("tensorflow", "all") as worker:
            spent, before = 0.0, 0
            for size, network in networks.items():
                # The preparation grows no faster than the size, and the rounds take as long again.
                expected = 2 * spent * (size / before if before else 1)
                if time.monotonic() + expected > deadline:
                    left_out.append({"axis": axis, "size": size, "work": work})
                    continue
                progress(f"scaling: {work}, {axis} {size}")
                begun = time.monotonic()
                ready[size] = worker.ask(
                    "prepare",
                    key=size,
                    contestant=contestant.to_json(),
                    network=network.to_json(),
                    work=work,
                    optimizer="sgd",
                    rate=RATES["sgd"],
                    learn=1,
                    burst=burst,
                )
                seconds[size] = []
                spent, before = time.monotonic() - begun, size
            for _ in range(rounds):
                for size in ready:
                    if time.monotonic() < deadline or not seconds[size]:
                        steps = ready[size]["steps"]
                        seconds[size].append(worker.ask("burst", key=size, steps=steps))
        for size, times in seconds.items():
            here = {**_CENTRE, axis: size}
            median = statistics.median(times)
            rows.append(
                {
                    "axis": axis,
                    "size": size,
                    "work": work,
                    **here,
                    "milliseconds": 1e3 * median,
                    "nanoseconds_each": 1e9 * median / np.prod(list(here.values())).item(),
                }
            )
    return {
        **provenance(rounds=rounds, burst_seconds=burst, budget_seconds=budget, centre=_CENTRE),
        "rows": rows,
        "left_out": left_out,
    }


def _scaled(steps: int, units: int, batch: int) -> Network:
    return Network(f"88-{units}-88", (88, units, 88), batch, steps, labels=False)


def memory(
    steps: Sequence[int] = MEMORY_STEPS,
    units: int = 150,
    batch: int = 16,
    progress: Progress = print,
) -> dict[str, Any]:
    """Measure the memory of training over the number of steps, each in a process of its own.

    Args:
        steps: Lengths of the sequences, ascending; the growth between them counts.
        units, batch: Of the network 88-units-88.
        progress: Told what is being done.

    Returns:
        Provenance, and `rows` with bytes: `peaks` of the whole process by number of steps; by time
        step of backpropagation their growth (`peak_per_step`), what the layer keeps between its
        passes with its output (`stored_per_step`, this package alone), the data (`data_per_step`:
        inputs and targets, as given) and the least (`least_per_step`: one float32 membrane
        potential and one float32 output for each unit and sample).
    """
    fused = Contestant("tensorflow", "snukeras", "SNU", False)
    cases = [(fused, {}), (fused, {"implementation": "cell"})]
    cases.append((Contestant("tensorflow", "keras", "LSTM", False), {}))
    rows, failures = [], []
    for contestant, arguments in cases:
        name = " ".join([contestant.name, *(f"{k}={v}" for k, v in arguments.items())])
        peaks, stored = {}, None
        try:
            for length in steps:
                progress(f"memory: {name}, {length} steps")
                case = {
                    "contestant": contestant.to_json(),
                    "network": _scaled(length, units, batch).to_json(),
                }
                # Each reading needs a fresh process: memory that was freed stays with the old one.
                with Worker("tensorflow", "all") as worker:
                    peaks[length] = worker.ask("peak", **case, arguments=arguments)
            if contestant.library == "snukeras" and not arguments:
                with Worker("tensorflow", "all") as worker:
                    held = worker.ask("stored", **case)
                    stored = None if held is None else held / max(steps)
        except WorkerError as error:
            failures.append({"contestant": name, "reason": str(error)})
            continue
        slope = float(np.polyfit(list(peaks), list(peaks.values()), 1)[0])
        rows.append(
            {
                "contestant": name,
                "peaks": {str(length): peak for length, peak in peaks.items()},
                "peak_per_step": slope,
                "stored_per_step": stored,
                "data_per_step": 4 * batch * 2 * 88,
                "least_per_step": 2 * 4 * batch * units,
            }
        )
    return {**provenance(units=units, batch=batch), "rows": rows, "failures": failures}
