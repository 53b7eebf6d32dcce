"""What it saves to split the samples over chips: 100 chips at four times, both ways in one run.

    python -m experiments.chips_speed --output experiments/results/chips_speed.json

"whole" evaluates each chip on the whole test split at each time, "split" on a tenth of it, another
tenth than the next chip, as the difference to the network without devices; then the ten tenths come
again. Both take the same chips, batches and times. The time of "whole" is extrapolated from a few
chips: the first one, which compiles, and so many times the mean of the others as there are left.
Networks: "weights" reads the weights of chips, "tiles" computes with 8-bit converters (generic8)
and the noise of each product. Both ways share one run, so that their ratio means something on a
busy machine too.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import reporting
from snukeras import _files
from snukeras.zoo import presets, training
from snukeras.zoo.tasks import Classification, registry

if TYPE_CHECKING:
    import keras

FORMAT = 1
RESULTS = "chips_speed.json"
SIDES = ("weights", "tiles")
# A part is one batch, which needs no pipeline of data.
BATCH = 1000


def network(name: str, side: str, content: Path | str | None = None) -> tuple["keras.Model", Any]:
    """Return a compiled preset, on tiles or not, and its test split.

    Args:
        name: A preset.
        side: One of SIDES.
        content: Folder of presets. Default: the one that ships with the package.
    """
    from snukeras.pcm import GenericPCM, analog, calibrate

    model = presets.load(name, content=content)
    task = registry.task_of(presets.info(name, content)["task"])
    if not isinstance(task, Classification):
        raise ValueError(f"{name} has to have a task of digits. Received: {task.name}")
    x, y = task.samples["test"]
    if side == "tiles":
        model = analog(model, "generic8", device=GenericPCM())
        calibrate(model, task.samples["train"][0][:64], percentile=99.9)
    model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    return model, (x, y)


def measure(
    model: "keras.Model", x: Any, y: Any, chips: int, whole: int, parts: int
) -> dict[str, Any]:
    """Evaluate chips both ways.

    Args:
        model: Compiled.
        x, y: The split.
        chips: How many chips.
        whole: How many of them are evaluated on all samples, at least 2.
        parts: In how many parts the others' samples are split.

    Returns:
        Seconds of both ways, and for each time the mean of the metric with its standard error.
    """
    from snukeras.pcm import evaluate_chips, summarize

    def run(**given: Any) -> tuple[list[dict[str, float]], float]:
        started = time.perf_counter()
        rows = evaluate_chips(
            model, x, y, compensation="column", batch_size=BATCH, progress=False, **given
        )
        return rows, time.perf_counter() - started

    run(chips=1, samples=len(x) // parts)  # the simulated devices compile once in a process
    _, first = run(chips=1)
    rows, several = run(chips=whole)
    each = (several - first) / (whole - 1)
    split, seconds = run(chips=chips, samples=len(x) // parts)
    metric = next(key for key in rows[0] if key not in ("chip", "time", "loss"))

    def told(rows: list[dict[str, float]], turns: int) -> dict[str, dict[str, float]]:
        return {
            str(t): {key: 100 * found[metric][key] for key in ("mean", "std", "stderr")}
            for t, found in summarize(rows, turns).items()
        }

    return {
        "metric": metric,
        "chips": chips,
        "measured": whole,
        "parts": parts,
        "whole": {"seconds": first + (chips - 1) * each, "times": told(rows, 1)},
        "split": {"seconds": seconds, "times": told(split, parts)},
    }


def experiment(
    name: str = "mnist_snu",
    chips: int = 100,
    whole: int = 4,
    parts: int = 10,
    sides: tuple[str, ...] = SIDES,
) -> dict[str, Any]:
    """Measure a preset; arguments as for `measure` and `network`."""
    found = {}
    for side in sides:
        model, (x, y) = network(name, side)
        found[side] = measure(model, x, y, chips, whole, parts)
    return {"format": FORMAT, "name": name, "sides": found, "versions": training.versions()}


def table(root: Path | str | None = None) -> str:
    """Return the results as Markdown."""
    results = _files.read_json(reporting.folder(RESULTS, root))
    lines = [
        f"| `{results['name']}` | chips | whole split, s (extrapolated) | parts of it, s | share "
        "| standard error, points, at worst |",
        "|---|---|---|---|---|---|",
    ]
    titles = {"weights": "weights of chips", "tiles": "8-bit converters"}
    for side in (side for side in SIDES if side in results["sides"]):
        case = results["sides"][side]
        whole, split = case["whole"]["seconds"], case["split"]["seconds"]
        worst = max(found["stderr"] for found in case["split"]["times"].values())
        lines.append(
            f"| {titles[side]} | {case['chips']} | {whole:.0f} | {split:.0f} "
            f"| {split / whole:.2f} | {worst:.3f} |"
        )
    return "\n".join(lines) + "\n"


@reporting.reported
def main(argv: list[str] | None = None) -> int:
    """Measure, and print both ways; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.chips_speed",
        description="Measure what it saves to split the samples over chips.",
    )
    parser.add_argument("--name", default="mnist_snu", help="a preset of digits")
    parser.add_argument("--chips", type=int, default=100)
    parser.add_argument("--whole", type=int, default=4, help="chips that see all samples")
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="JSON; other sides that it has stay"
    )
    given = parser.parse_args(argv)
    results = experiment(given.name, given.chips, given.whole, given.parts, tuple(given.sides))
    for side, case in results["sides"].items():
        print(f"{side}: {case}")
    if given.output is not None:
        if given.output.exists():
            results["sides"] = _files.read_json(given.output)["sides"] | results["sides"]
        _files.write_json(given.output, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
