"""Tables of the GRAPES experiments: accuracy, forgetting, robustness on devices."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting
from experiments.grapes.training import METHODS, NETWORKS, PARTS, RESULTS_FOLDER, TARGET
from snukeras import _files


def table(part: str = "accuracy", root: Path | str | None = None) -> str:
    """Return the measured table of a part, of the "modulation", the "depth" or in "short".

    Figures are means over seeds with the deviation of a seed; differences are means of the paired
    differences with their standard error.
    """
    if part == "depth":
        from experiments.grapes import depth  # a command of its own

        return depth.table(root)
    results = _results(root)
    rows = {
        "short": _short_rows,
        "accuracy": _accuracy_rows,
        "forgetting": _forgetting_rows,
        "robustness": _robustness_rows,
        "modulation": _modulation_rows,
    }[part](results)
    header, *lines = rows
    lines = [header, ["---"] * len(header), *lines]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def differences(root: Path | str | None = None) -> list[dict[str, Any]]:
    """Return what GRAPES gains under each condition, in percentage points.

    Returns:
        For each condition its "figure" ("test" accuracy, or that on the "first" task after the
        second), its "label", the mean in percent by method ("means"), and mean and standard error
        of the paired differences from "plain" and from "matched".
    """
    results = _results(root)
    conditions = [
        *(("test", _TITLES[k], runs) for k, _, runs in _groups(results["accuracy"])),
        *(
            ("test", f"{_TITLES[k]}, {_TRAINED[scenario]}", runs)
            for k, scenario, runs in _groups(results["robustness"])
            if scenario == "noise"
        ),
        *(
            ("first", f"{_TITLES[k]}, {scenario}", runs)
            for k, scenario, runs in _groups(results["forgetting"])
        ),
    ]
    rows = []
    for figure, label, runs in conditions:
        values = {
            method: 100
            * np.array(
                [r["test"] if figure == "test" else r["course"][-1][0] for r in runs[method]]
            )
            for method in METHODS
        }
        row: dict[str, Any] = {"figure": figure, "label": label}
        row["means"] = {method: float(found.mean()) for method, found in values.items()}
        for other in ("plain", "matched"):
            paired = values["grapes"] - values[other]
            error = paired.std(ddof=1) / np.sqrt(len(paired)) if len(paired) > 1 else 0.0
            row[other] = (float(paired.mean()), float(error))
        rows.append(row)
    return rows


def _results(root: Path | str | None) -> dict[str, list[dict[str, Any]]]:
    """Return the trainings of each part; none where it was not measured."""
    folder = reporting.folder(RESULTS_FOLDER, root)
    return {
        name: _files.read_json(path)["trainings"]
        if (path := folder / f"{name}.json").exists()
        else []
        for name in PARTS
    }


_Rows = Iterable[list[str]]


_TITLES = {"relu": "ReLU", "snu": "SNU", "ssnu": "sSNU"}
_TRAINED = {"float": "in float", "constraint": "PCMConstraint", "noise": "PCMNoise"}


def _groups(trainings: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, list]]]:
    """Iterate over network, scenario, and each method's trainings, with the same seeds in order."""
    for kind in NETWORKS:
        for scenario in dict.fromkeys(run["scenario"] for run in trainings):
            found = [r for r in trainings if (r["network"], r["scenario"]) == (kind, scenario)]
            if found:
                by = {m: {r["seed"]: r for r in found if r["method"] == m} for m in METHODS}
                seeds = sorted(set.intersection(*(set(runs) for runs in by.values())))
                if not seeds:
                    continue
                yield kind, scenario, {m: [runs[s] for s in seeds] for m, runs in by.items()}


def _short_rows(results: dict[str, list]) -> _Rows:
    """Yield the means of all three methods on the tests of accuracy, and what is between two."""
    yield ["test accuracy, %", *METHODS, "grapes against matched"]
    for kind, _, runs in _groups(results["accuracy"]):
        test = {method: 100 * np.array([r["test"] for r in runs[method]]) for method in METHODS}
        means = [f"{test[method].mean():.2f}" for method in METHODS]
        yield [_TITLES[kind], *means, _differences("grapes", test)[1]]
    for kind, scenario, runs in _groups(results["robustness"]):
        if scenario == "noise":
            test = {method: 100 * np.array([r["test"] for r in runs[method]]) for method in METHODS}
            means = [f"{test[method].mean():.2f}" for method in METHODS]
            label = f"{_TITLES[kind]}, {_TRAINED[scenario]}, one epoch"
            yield [label, *means, _differences("grapes", test)[1]]


def _accuracy_rows(results: dict[str, list]) -> _Rows:
    yield [
        *("network", "method", "seeds", "test accuracy, %"),
        *("against plain", "against matched", f"epochs to {TARGET:.0%}"),
    ]
    for kind, _, runs in _groups(results["accuracy"]):
        test = {method: 100 * np.array([r["test"] for r in runs[method]]) for method in METHODS}
        for method in METHODS:
            yield [
                *(_TITLES[kind], method, str(len(runs[method])), _spread(test[method])),
                *_differences(method, test),
                _epochs(runs[method]),
            ]


def _epochs(runs: list[dict[str, Any]]) -> str:
    """Return after how many epochs the validation accuracy first is at the target."""
    reached = []
    for run in runs:
        found = [part for part, accuracy in enumerate(run["valid"], 1) if accuracy >= TARGET]
        if found:
            reached.append(found[0] / run["parts_of_an_epoch"])
    if not reached:
        return "not reached"
    some = "" if len(reached) == len(runs) else f", {len(reached)} of {len(runs)} seeds"
    return _spread(np.array(reached)) + some


def _forgetting_rows(results: dict[str, list]) -> _Rows:
    yield [
        *("tasks", "network", "method", "seeds", "first task, before", "first task, after"),
        *("against plain", "against matched", "second task", "both, mean"),
    ]
    for kind, scenario, runs in _groups(results["forgetting"]):
        ends = {m: 100 * np.array([r["course"][-1] for r in runs[m]]) for m in METHODS}
        first = {method: end[:, 0] for method, end in ends.items()}
        for method in METHODS:
            before = 100 * np.array([r["first_before"] for r in runs[method]])
            yield [
                *(scenario, _TITLES[kind], method, str(len(before)), _spread(before)),
                _spread(first[method]),
                *_differences(method, first),
                _spread(ends[method][:, 1]),
                _spread(ends[method].mean(axis=1)),
            ]


def _robustness_rows(results: dict[str, list]) -> _Rows:
    trainings = [*results["accuracy"], *results.get("robustness", [])]
    # Results of chips are shown where all of them are there.
    figures = ["test", *(["test_on_chip"] if all("test_on_chip" in r for r in trainings) else [])]
    titles = {"test": "test accuracy, %", "test_on_chip": "on a chip after a day, %"}
    yield [
        *("trained", "network", "method", "seeds"),
        *(h for f in figures for h in (titles[f], "against plain", "against matched")),
    ]
    for kind, scenario, runs in _groups(trainings):
        found = {f: {m: 100 * np.array([r[f] for r in runs[m]]) for m in METHODS} for f in figures}
        for method in METHODS:
            yield [
                *(_TRAINED[scenario], _TITLES[kind], method, str(len(runs[method]))),
                *(
                    cell
                    for by in found.values()
                    for cell in (_spread(by[method]), *_differences(method, by))
                ),
            ]


def _modulation_rows(results: dict[str, list]) -> _Rows:
    yield ["network", "M at the start, by hidden layer", "M at the end, by hidden layer"]
    for kind, _, runs in _groups(results["accuracy"]):
        cells = []
        for when in ("modulation_at_start", "modulation_at_end"):
            layers = zip(*(run[when] for run in runs["grapes"]), strict=True)
            cells.append(
                ", ".join(
                    f"{np.mean([m['mean'] for m in layer]):.2f} ± "
                    f"{np.mean([m['deviation'] for m in layer]):.2f}"
                    for layer in layers
                )
            )
        yield [_TITLES[kind], *cells]


def _differences(method: str, figures: dict[str, np.ndarray]) -> list[str]:
    """Return the paired differences of a method from plain and from matched."""
    cells = []
    for other in ("plain", "matched"):
        if METHODS.index(method) <= METHODS.index(other):
            cells.append("")
            continue
        difference = figures[method] - figures[other]
        if len(difference) == 1:
            cells.append(f"{difference[0]:+.2f}")
            continue
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        cells.append(f"{difference.mean():+.2f} ± {error:.2f}")
    return cells


def _spread(figures: np.ndarray) -> str:
    if len(figures) == 1:
        return f"{figures[0]:.2f}"
    return f"{figures.mean():.2f} ± {figures.std(ddof=1):.2f}"
