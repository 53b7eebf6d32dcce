"""Spatial networks: two tasks in one network, split after training, and laid out on tiles.

    python -m snukeras.experiments.spatial search run picture

A network of sigmoid units sees a digit of MNIST and an article of Fashion-MNIST side by side and
names both. Three variants: without costs, with the spatial costs, and with weight decay of the
strength that the transport cost has at the start, but no positions. After training, the neurons
are split between the tasks; and the weights are pruned, ordered and placed on tiles. `search`
chooses the transport factor on the validation split with a seed of its own.
"""

import argparse
import gzip
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snukeras.zoo import _files, presets

if TYPE_CHECKING:
    import keras

RESULTS_FOLDER = "spatial"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
HIDDEN = (128, 128)
EPOCHS, BATCH, LEARNING_RATE = 8, 256, 2e-3
VALIDATION = 5000
SEEDS = range(2)
SEARCH_SEED = 100
FACTORS = (1.0, 10.0, 100.0)  # of the transport cost; that of proximity is 1
VARIANTS = ("none", "decay", "spatial")
TITLES = {"none": "no costs", "decay": "weight decay", "spatial": "spatial costs"}
START_DISTANCE = 1.7725  # mean distance of two neurons at the start, sqrt(pi)
TASKS = np.repeat([0, 1], 10)  # of the outputs
NAMES = ("MNIST", "Fashion-MNIST")
TILE = 32  # word lines, and pairs of bit lines
LOST = 0.005  # of validation accuracy, that pruning may cost
SHARES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
ORDERS = ("trained", "task", "position")


def fashion() -> tuple[Any, Any]:
    """Fashion-MNIST, from the Debian package dataset-fashion-mnist or else from Keras."""
    import keras

    if not DEBIAN.is_dir():
        return keras.datasets.fashion_mnist.load_data()

    def read(name: str, header: int) -> np.ndarray:
        content = gzip.decompress((DEBIAN / f"{name}-ubyte.gz").read_bytes())
        return np.frombuffer(content, "uint8", offset=header)

    return tuple(
        (read(f"{part}-images-idx3", 16).reshape(-1, 28, 28), read(f"{part}-labels-idx1", 8))
        for part in ("train", "t10k")
    )  # type: ignore[return-value]


def load() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both data sets side by side: inputs (n, 1568) and labels (n, 2) for each split."""
    from snukeras.datasets import mnist

    random = np.random.default_rng(0)
    splits = []
    for digits, articles in zip(mnist.load_data(), fashion(), strict=True):
        # In an order of their own: otherwise chance would decide which classes meet.
        order = random.permutation(len(articles[0]))
        parts = (digits[0], articles[0][order])
        x = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        y = np.stack([digits[1], articles[1][order]], axis=1)
        splits.append((x.astype("float32") / 255.0, y.astype("int32")))
    (x, y), test = splits
    return {
        "train": (x[:-VALIDATION], y[:-VALIDATION]),
        "valid": (x[-VALIDATION:], y[-VALIDATION:]),
        "test": test,
    }


def network(variant: str, factor: float, seed: int) -> "keras.Model":
    """A `Spatial` model of a variant; `factor` is that of the transport cost."""
    import keras

    from snukeras.layers import Spatial

    generator = keras.random.SeedGenerator(seed)
    sizes = (2 * 784, *HIDDEN, 20)

    def dense(place: int, name: str, activation: str | None) -> Any:
        decay = None
        if variant == "decay" and place:
            connections = len(sizes) - 2
            mean = connections * sizes[place] * sizes[place + 1]
            decay = keras.regularizers.L2(factor * START_DISTANCE / mean)
        return keras.layers.Dense(
            sizes[place + 1],
            activation,
            kernel_initializer=keras.initializers.GlorotUniform(seed=generator),
            kernel_regularizer=decay,
            name=name,
        )

    layers = [
        keras.Input((sizes[0],)),
        dense(0, "hidden_1", "sigmoid"),
        dense(1, "hidden_2", "sigmoid"),
        dense(2, "outputs", None),
    ]
    on = variant == "spatial"
    return Spatial(
        keras.Sequential(layers), float(on), factor if on else 0.0, power=2, seed=seed + 1000
    )


def train(variant: str, factor: float, seed: int, data: dict[str, Any]) -> "keras.Model":
    """Train a network."""
    import keras

    def both(y: Any, logits: Any) -> Any:
        return sum(
            keras.losses.sparse_categorical_crossentropy(
                y[:, task], logits[:, 10 * task : 10 * task + 10], from_logits=True
            )
            for task in range(2)
        )

    keras.utils.set_random_seed(seed)
    model = network(variant, factor, seed)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), both)
    model.fit(*data["train"], batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return model


def accuracies(weights: list[np.ndarray], data: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Accuracy of both tasks, for kernels and biases of the three layers."""
    x, y = data
    for kernel, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        x = 1.0 / (1.0 + np.exp(-(x @ kernel + bias)))
    logits = x @ weights[4] + weights[5]
    return [
        float((logits[:, 10 * t : 10 * t + 10].argmax(axis=1) == y[:, t]).mean()) for t in range(2)
    ]


def after_split(model: Any, data: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Accuracy of each task with the neurons of the other silenced."""
    tasks = model.split(TASKS)
    return [accuracies(model.part(tasks, task).get_weights(), data)[task] for task in range(2)]


def pruned(model: Any, data: tuple[np.ndarray, np.ndarray]) -> tuple[list[np.ndarray], float]:
    """The weights without the smallest of the matrices between neurons; the share of them.

    As many as `LOST` allows, the same share of both. The first matrix stays: its inputs come from
    outside in any case.
    """
    weights = model.network.get_weights()
    limit = np.mean(accuracies(weights, data)) - LOST
    best, found = weights, 0.0
    for share in SHARES:
        tried = [
            np.where(np.abs(w) > np.quantile(np.abs(w), share), w, 0.0) if i in (2, 4) else w
            for i, w in enumerate(weights)
        ]
        if np.mean(accuracies(tried, data)) < limit:
            break
        best, found = tried, share
    return best, found


def orders(model: Any) -> dict[str, list[np.ndarray]]:
    """Orders of the neurons of each layer, by name.

    By position means along the direction in which the neurons of all layers spread the most.
    """
    positions = [*model.positions.values()]
    everyone = np.concatenate(positions)
    axis = np.linalg.svd(everyone - everyone.mean(axis=0), full_matrices=False)[2][0]
    return {
        "trained": [np.arange(len(p)) for p in positions],
        "task": [np.argsort(t, kind="stable") for t in model.split(TASKS).values()],
        "position": [np.argsort(p @ axis, kind="stable") for p in positions],
    }


def crossing(weights: list[np.ndarray], order: list[np.ndarray]) -> dict[str, int]:
    """Values between tiles for each input, of the two matrices between neurons."""
    from snukeras.export.placement import place, traffic
    from snukeras.export.targets import load_target

    target = load_target("pcm").replace(rows=TILE, columns=TILE, crosspoint="pair")
    matrices = [
        weights[2][order[0]][:, order[1]],
        weights[4][order[1]][:, order[2]],
    ]
    counts = traffic(place([m.shape for m in matrices], target), matrices)
    return {key: sum(count[key] for count in counts) for key in counts[0]}


def measure(variant: str, factor: float, seed: int, data: dict[str, Any]) -> dict[str, Any]:
    """Train a network and measure it on the test split."""
    model = train(variant, factor, seed, data)
    weights, share = pruned(model, data["valid"])
    return {
        "variant": variant,
        "factor": factor,
        "seed": seed,
        "before": accuracies(model.network.get_weights(), data["test"]),
        "after": after_split(model, data["test"]),
        "neurons": [np.bincount(t, minlength=2).tolist() for t in model.split(TASKS).values()],
        "proximity": float(model.proximity_cost()),
        "transport": float(model.transport_cost()),
        "pruned_share": share,
        "pruned": accuracies(weights, data["test"]),
        "crossing": {name: crossing(weights, order) for name, order in orders(model).items()},
        "full": crossing(model.network.get_weights(), orders(model)["trained"]),
    }


def search(folder: Path) -> dict[str, Any]:
    """Choose the factor of the transport cost by the validation accuracy after the split."""
    data = load()
    tried: list[dict[str, Any]] = []
    for factor in FACTORS:
        model = train("spatial", factor, SEARCH_SEED, data)
        before = accuracies(model.network.get_weights(), data["valid"])
        tried.append(
            {"factor": factor, "before": before, "after": after_split(model, data["valid"])}
        )
        print(tried[-1], flush=True)
    best = max(tried, key=lambda run: np.mean(run["after"]))
    results = {"seed": SEARCH_SEED, "tried": tried, "chosen": best["factor"]}
    _files.write_json(folder / "search.json", results)
    return results


def experiment(folder: Path, seeds: Iterable[int] = SEEDS) -> dict[str, Any]:
    """Train and measure all variants; a run that was killed goes on after the last network."""
    path = folder / "results.json"
    factor = _files.read_json(folder / "search.json")["chosen"]
    results: dict[str, Any] = _files.read_json(path) if path.exists() else {"runs": []}
    done = {(run["variant"], run["seed"], run["factor"]) for run in results["runs"]}
    data = None
    for seed in seeds:
        for variant in VARIANTS:
            if (variant, seed, factor) in done:
                continue
            data = load() if data is None else data
            results["runs"].append(measure(variant, factor, seed, data))
            _files.write_json(path, results)
            print(results["runs"][-1], flush=True)
    return results


def picture(folder: Path) -> None:
    """Draw the neurons of the spatial network by task: neurons.png."""
    from matplotlib import pyplot as plt

    factor = _files.read_json(folder / "search.json")["chosen"]
    model = train("spatial", factor, 0, load())
    start = network("spatial", factor, 0).positions
    tasks = model.split(TASKS)
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 6.2), constrained_layout=True)
    for row, (when, positions) in zip(
        axes, (("at the start", start), ("trained", model.positions)), strict=True
    ):
        everyone = np.concatenate([*positions.values()])
        for axis, (name, p) in zip(row, positions.items(), strict=True):
            for task, colour in enumerate(("#1b6ca8", "#d1495b")):
                mine = tasks[name] == task
                axis.plot(*p[mine].T, ".", color=colour, ms=5, label=NAMES[task])
            axis.set(
                title=f"{name.replace('_', ' ')}, {when}",
                xlim=(everyone[:, 0].min() - 0.3, everyone[:, 0].max() + 0.3),
                ylim=(everyone[:, 1].min() - 0.3, everyone[:, 1].max() + 0.3),
            )
    axes[0, 0].legend(fontsize=8)
    figure.savefig(folder / "neurons.png", dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def table(part: str = "split", content: Path | str | None = None) -> str:
    """Return a table as Markdown: "split" or "traffic"."""
    runs = _files.read_json(results_folder(content) / "results.json")["runs"]
    lines = {
        "split": [
            "| network | MNIST before | Fashion before | MNIST after the split "
            "| Fashion after the split | neurons for MNIST, of the hidden ones |",
            "|---|---|---|---|---|---|",
        ],
        "traffic": [
            "| network | weights pruned | accuracy, pruned | order of the neurons "
            "| values crossing | tiles needed |",
            "|---|---|---|---|---|---|",
        ],
    }[part]
    for variant in VARIANTS:
        own = [run for run in runs if run["variant"] == variant]
        if part == "split":
            figures = [
                _percent([run[when][task] for run in own])
                for when in ("before", "after")
                for task in range(2)
            ]
            neurons = [sum(layer[0] for layer in run["neurons"][:2]) for run in own]
            lines.append(
                f"| {TITLES[variant]} | {' | '.join(figures)} "
                f"| {np.mean(neurons):.0f} of {sum(HIDDEN)} |"
            )
            continue
        for order in ORDERS:
            if order == "position" and variant != "spatial":
                continue
            counts = [run["crossing"][order] for run in own]
            values = [count["inputs"] + count["partial_sums"] for count in counts]
            tiles = [count["tiles"] for count in counts]
            full = own[0]["full"]
            lines.append(
                f"| {TITLES[variant]} | {100 * np.mean([r['pruned_share'] for r in own]):.0f} % "
                f"| {_percent([float(np.mean(run['pruned'])) for run in own])} "
                f"| {'as trained' if order == 'trained' else 'by ' + order} "
                f"| {np.mean(values):.0f} ± {np.std(values, ddof=1):.0f} "
                f"of {full['inputs'] + full['partial_sums']} "
                f"| {np.mean(tiles):.1f} of {full['tiles']} |"
            )
    return "\n".join(lines) + "\n"


def _percent(values: list[float]) -> str:
    return f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f} %"


def results_folder(content: Path | str | None = None) -> Path:
    """Where results of this experiment are."""
    return presets.content_folder(content) / presets.RESULTS / RESULTS_FOLDER


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m snukeras.experiments.spatial",
        description="Two tasks in one spatial network: split, and traffic between tiles.",
    )
    parser.add_argument("what", nargs="+", choices=["search", "run", "picture"])
    parser.add_argument("--results", type=Path, help="folder; default: zoo/results/spatial")
    parser.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS])
    arguments = parser.parse_args(argv)
    folder = arguments.results or results_folder()
    for what in arguments.what:
        if what == "search":
            search(folder)
        elif what == "run":
            experiment(folder, arguments.seeds)
        else:
            picture(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
