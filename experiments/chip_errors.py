"""What each error of a chip costs the models of JSB chorales, with the others as they are.

    python -m experiments.chip_errors

The models compute on chips as in `experiments.through_converters`, 8 bits, on the validation split,
once with all errors and once without each of them. Cases that are done are kept.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import reporting
from experiments.reporting import reported
from experiments.through_converters import FAMILIES, NOISE, TIMES, TRAINED, split_of
from snukeras import _files
from snukeras.pcm import (
    DifferentialPair,
    GenericPCM,
    InputConverter,
    OutputConverter,
    Tile,
    analog,
    calibrate,
    evaluate_chips,
)
from snukeras.pcm.monte_carlo import summarize
from snukeras.zoo import presets
from snukeras.zoo.tasks import TASKS, Task, registry

RESULTS_FOLDER = "chip_errors"
FAMILY = "jsb"
CHIPS = 10
# What is changed: of the device, bits of the converters, noise at outputs, compensation.
CASES: dict[str, dict[str, Any]] = {
    "all errors": {},
    "no programming noise": {"device": {"programming_noise": 0.0}},
    "no read noise": {"device": {"read_noise": 0.0}},
    "no drift": {"device": {"drift": 0.0}},
    "no converters": {"bits": None},
    "no noise at outputs": {"noise": 0.0},
    "one factor of compensation a tile": {"compensation": "global"},
    "no compensation": {"compensation": None},
}


def experiment(
    chips: int = CHIPS,
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
    root: Path | str | None = None,
) -> list[dict[str, Any]]:
    """Evaluate all cases on chips that are fresh and after a year; goes on where it was stopped.

    Args:
        chips: Chips of each case.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.
        root: Folder of all results. Default: `experiments/results` of the checkout.

    Returns:
        The cases, as written to `chip_errors/jsb.json`.
    """

    def measure(name: str, case: str, chips: int, weights_sha256: str) -> dict[str, Any]:
        task = registry.task_of(presets.info(name, content)["task"], tasks)
        changes = {"bits": 8, "noise": NOISE, "device": {}, "compensation": "column", **CASES[case]}
        bits, device = changes["bits"], GenericPCM(**changes["device"])
        tile = Tile(
            input=None if bits is None else InputConverter(bits),
            output=OutputConverter(
                bits, None if bits is None else "calibrated", noise=changes["noise"]
            ),
        )
        pair = DifferentialPair(device.g_max, scale="column")
        net = analog(presets.load(name, content=content), tile, device, seed=0, pair=pair)
        if tile.calibrates:
            calibrate(net, task.typical_inputs()[:64], batch_size=64)
        net.compile(loss=task.loss({}), weighted_metrics=task.metrics())
        rows = evaluate_chips(
            net,
            **split_of(task, "valid"),
            chips=chips,
            times=[*TIMES.values()],
            seed=1,
            compensation=changes["compensation"],
            executor=reporting.executor(),
        )
        found = summarize(rows)
        return {
            time: {key: round(found[t][task.metric][key], 5) for key in ("mean", "std")}
            for time, t in TIMES.items()
        }

    patterns = [TRAINED[trained] for trained in ("plainly", "at noisy weights", "on tiles")]
    names = [pattern.format(FAMILIES[FAMILY]) for pattern in patterns]
    cases = [
        {
            "name": name,
            "case": case,
            "chips": chips,
            "weights_sha256": presets.info(name, content)["files"][presets.WEIGHTS]["sha256"],
        }
        for name in names
        if name in presets.list(content=content)
        for case in CASES
    ]
    path = reporting.folder(RESULTS_FOLDER, root) / f"{FAMILY}.json"
    return reporting.gather(path, cases, measure, here=True)


def table(root: Path | str | None = None) -> str:
    """Return the figures after a year as Markdown, a row for each case."""
    path = reporting.folder(RESULTS_FOLDER, root) / f"{FAMILY}.json"
    runs = _files.read_json(path)["runs"]
    names = list(dict.fromkeys(run["name"] for run in runs))
    lines = [f"| | {' | '.join(f'`{name}`' for name in names)} |", "|---|" + "---|" * len(names)]
    for case in CASES:
        means = [
            run["1 year"]["mean"]
            for name in names
            for run in runs
            if (run["name"], run["case"]) == (name, case)
        ]
        lines.append(f"| {case} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Evaluate all cases; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.chip_errors",
        description="Say what each error of a chip costs the models of JSB chorales.",
    )
    parser.add_argument("--chips", type=int, default=CHIPS)
    experiment(parser.parse_args(argv).chips)
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
