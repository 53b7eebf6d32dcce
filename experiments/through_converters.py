"""Models of the zoo on chips with converters of 8, 6 and 4 bits, fresh and after a year.

    python -m experiments.through_converters jsb --chips 50

What there is of three models of a task is compared: trained plainly, trained at noisy weights, and
trained on tiles (`analog` in a recipe). Each computes on chips of the generic PCM model, with a
range of conductance and a factor of drift compensation for each column, in tiles of 256 x 256
weights whose input and output converters have so many bits and fixed ranges, and whose outputs
have noise of 0.04 of the current of one weight.

The first 64 samples of training set the ranges, by what is best on validation, on two chips after
a year, or in the mean of fresh ones and these (`--ranges-for both`): first one percentile for all,
then, from the last matrix to the first, a share of it for the outputs of each. With these ranges
the test split is measured once, on other chips. Chips and cases that are done are kept.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from experiments import reporting
from experiments.reporting import reported
from snukeras import _files
from snukeras.datasets import piano_roll
from snukeras.pcm import (
    AnalogNetwork,
    DifferentialPair,
    GenericPCM,
    InputConverter,
    OutputConverter,
    Tile,
    analog,
    calibrate,
    evaluate_chips,
)
from snukeras.pcm.monte_carlo import YEAR, summarize
from snukeras.zoo import presets
from snukeras.zoo.tasks import TASKS, PianoRolls, Task, registry

RESULTS_FOLDER = "through_converters"
TRAINED = {
    "plainly": "{}",
    "at noisy weights": "{}_pcm",
    "on tiles": "{}_chip",
    "on tiles of 4 bits": "{}_chip4",
}
FAMILIES = {"jsb": "jsb_snu", "speech": "speech_snu", "mnist": "mnist_snu"}
BITS = (8, 6, 4)
PERCENTILES = (100.0, 99.9, 99.0, 97.0, 95.0)
SHARES = (0.7, 0.5, 0.4, 0.3)
NOISE = 0.04
TIMES = {"25 s": 25.0, "1 year": YEAR}
AGES = {"a year": [YEAR], "both": [*TIMES.values()]}
# Samples that each chip sees of larger splits; a chip has others than the next.
SAMPLES = 1000


def experiment(
    family: str,
    chips: int = 50,
    bits: Iterable[int] = BITS,
    ranges_for: str = "a year",
    runs: Path | str = "runs/through_converters",
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
    root: Path | str | None = None,
) -> list[dict[str, Any]]:
    """Evaluate the models of a task on chips; goes on where it was stopped.

    Args:
        family: One of `FAMILIES`.
        chips: Chips of each case.
        bits: Of both converters.
        ranges_for: The age of chips that ranges are chosen by, one of `AGES`.
        runs: Folder for the rows of finished chips.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.
        root: Folder of all results. Default: `experiments/results` of the checkout.

    Returns:
        The cases, as written to `through_converters/FAMILY.json`, with mean, deviation and worst of
        the chips at each time.
    """
    folder = Path(runs) / family
    folder.mkdir(parents=True, exist_ok=True)

    def measure(
        name: str, bits: int, weights_sha256: str, ranges_for: str, **case: Any
    ) -> dict[str, Any]:
        preset = presets.info(name, content)
        task = registry.task_of(preset["task"], tasks)
        model = presets.load(name, content=content)
        ranges = _chosen(model, task, bits, AGES[ranges_for])
        chosen = {"percentile": ranges["percentile"], "shares": ranges["shares"]}
        own = _files.sha256_of_json({"weights": weights_sha256, **chosen})
        rows = evaluate_chips(
            _network(model, task, bits, **chosen),
            **split_of(task, "test"),
            chips=chips,
            times=[*TIMES.values()],
            results=folder / f"{name}-{bits}-{own[:8]}.json",
            compensation="column",
            executor=reporting.executor(),
        )
        found = summarize(rows)
        factor = 1.0 if task.lower_is_better else 100.0
        return {
            "float": preset["test"],
            "unit": preset["unit"],
            **ranges,
            **{
                time: {
                    key: round(factor * found[t][task.metric][key], 5)
                    for key in ("mean", "std", "min", "max")
                }
                for time, t in TIMES.items()
            },
        }

    cases = []
    for wanted in bits:
        for trained, pattern in TRAINED.items():
            name = pattern.format(FAMILIES[family])
            if name not in presets.list(content=content):
                continue
            sha256 = presets.info(name, content)["files"][presets.WEIGHTS]["sha256"]
            cases.append(
                {
                    "name": name,
                    "trained": trained,
                    "bits": wanted,
                    "chips": chips,
                    "ranges_for": ranges_for,
                    "weights_sha256": sha256,
                }
            )
    path = reporting.folder(RESULTS_FOLDER, root) / f"{family}.json"
    return reporting.gather(path, cases, measure, here=True)


def _chosen(model: keras.Model, task: Task, bits: int, ages: list[float]) -> dict[str, Any]:
    """Return the ranges that are best on validation, and the figures of all that were tried."""

    def figure(percentile: float, shares: dict[str, float]) -> float:
        rows = evaluate_chips(
            _network(model, task, bits, percentile, shares),
            **split_of(task, "valid"),
            chips=2,
            times=ages,
            seed=1,
            compensation="column",
            executor=reporting.executor(),
        )
        found = summarize(rows)
        return float(np.mean([found[t][task.metric]["mean"] for t in ages]))

    pick = min if task.lower_is_better else max
    tried = {percentile: figure(percentile, {}) for percentile in PERCENTILES}
    percentile = pick(tried, key=lambda percentile: tried[percentile])
    shares: dict[str, float] = {}
    best, by_share = tried[percentile], {}
    for name in [*analog(model).products()][::-1]:
        found = {share: figure(percentile, {**shares, name: share}) for share in SHARES}
        by_share[name] = {f"{share:g}": round(value, 5) for share, value in found.items()}
        share = pick(found, key=lambda share: found[share])
        if found[share] != best and pick(found[share], best) == found[share]:
            shares[name], best = share, found[share]
    return {
        "percentile": percentile,
        "shares": shares,
        "valid_by_percentile": {f"{key:g}": round(value, 5) for key, value in tried.items()},
        "valid_by_share": by_share,
    }


def _network(
    model: keras.Model,
    task: Task,
    bits: int,
    percentile: float,
    shares: dict[str, float],
) -> AnalogNetwork:
    """Return a compiled network on tiles, its ranges set."""
    device = GenericPCM()
    tile = Tile(256, 256, InputConverter(bits), OutputConverter(bits, noise=NOISE))
    net = analog(model, tile, device, seed=0, pair=DifferentialPair(device.g_max, scale="column"))
    calibrate(
        net,
        task.typical_inputs()[:64],
        percentile=percentile,
        batch_size=64,
        output_share=shares,
    )
    net.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    return net


def split_of(task: Task, split: str) -> dict[str, Any]:
    """Return what `evaluate_chips` needs of a split."""
    if isinstance(task, PianoRolls):
        x, y, mask = piano_roll.pad(task.songs[split])
        return {"x": x, "y": y, "sample_weight": mask.astype(np.float32), "batch_size": len(x)}
    x, y = task.samples[split]  # type: ignore[attr-defined]
    if split == "valid":
        return {"x": x[:SAMPLES], "y": y[:SAMPLES], "batch_size": 500}
    samples = SAMPLES if len(x) > SAMPLES else None
    return {"x": x, "y": y, "samples": samples, "batch_size": 500}


def table(family: str, root: Path | str | None = None) -> str:
    """Return the figures of a task as Markdown; what is lost is against the plain float model."""
    path = reporting.folder(RESULTS_FOLDER, root) / f"{family}.json"
    runs = _files.read_json(path)["runs"]
    order = [*TRAINED]
    runs.sort(key=lambda run: (-run["bits"], order.index(run["trained"]), run["ranges_for"]))
    float_of = {run["trained"]: run["float"] for run in runs}
    lines = [
        f"| trained | float | bits | ranges | {' | '.join(TIMES)} | against "
        f"{float_of['plainly']:.3f}, 1 year |",
        "|---|---|---|---|" + "---|" * (len(TIMES) + 1),
    ]
    for run in runs:
        figures = " | ".join(f"{run[t]['mean']:.3f} ± {run[t]['std']:.3f}" for t in TIMES)
        change = run["1 year"]["mean"] - float_of["plainly"]
        lines.append(
            f"| {run['trained']} (`{run['name']}`) | {run['float']:.3f} | {run['bits']} | "
            f"{_ranges(run)} | {figures} | {change:+.3f} |"
        )
    return "\n".join(lines) + "\n"


def _ranges(run: Mapping[str, Any]) -> str:
    """Return the percentile of a case, and the matrices that have a share of it."""
    shares = (
        f"{name.removesuffix('/kernel')} x {share:g}" for name, share in run["shares"].items()
    )
    both = ["for both ages"] if run["ranges_for"] == "both" else []
    return ", ".join([f"{run['percentile']:g}", *shares, *both])


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Evaluate the models of the named tasks; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.through_converters",
        description="Evaluate models on simulated chips with converters, fresh and after a year.",
    )
    parser.add_argument("families", nargs="+", choices=[*FAMILIES], metavar="TASK")
    parser.add_argument("--chips", type=int, default=50)
    parser.add_argument("--bits", type=int, nargs="+", default=[*BITS])
    parser.add_argument("--ranges-for", choices=[*AGES], default="a year")
    parser.add_argument("--runs", type=Path, default=Path("runs/through_converters"))
    given = parser.parse_args(argv)
    for family in given.families:
        experiment(family, given.chips, given.bits, given.ranges_for, given.runs)
        print(table(family))
    return 0


if __name__ == "__main__":
    sys.exit(main())
