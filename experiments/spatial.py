"""Spatial networks: two tasks in one network, split after training.

    python -m experiments.spatial search run picture

A network sees a digit of MNIST and an article of Fashion-MNIST side by side and names both. Its
variants: without costs; with weight decay, but no positions; with the spatial costs. After
training, the neurons are split between the tasks. `search` chooses how strong the costs of each
variant are, on the validation split with a seed of its own. Layouts on tiles are measured by
`experiments.spatial_tiles`.
"""

import functools
import gzip
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import reporting
from snukeras import _files

if TYPE_CHECKING:
    import keras

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
HIDDEN = (128, 128)
BATCH, LEARNING_RATE = 256, 2e-3
# Units and training: sigmoid units that see pixels, or spiking ones that see STEPS steps of spikes.
NETWORKS: dict[str, dict[str, int]] = {
    "dense": {"epochs": 8, "images": 30000},
    "snu": {"epochs": 10, "images": 20000},
}
UNITS = {"dense": "sigmoid", "snu": "SNU"}
STEPS = 5
VALIDATION = 5000
SEEDS = range(5)
SEARCH_SEED = 100
# Whether neurons have positions, and the power of |w| in the cost of connections.
VARIANTS = {
    "none": (False, 0),
    "decay": (False, 2),
    "lasso": (False, 1),
    "spatial": (True, 2),
    "spatial_1": (True, 1),
}
TITLES = {
    "none": "no costs",
    "decay": "weight decay (L2)",
    "lasso": "weight decay (L1)",
    "spatial": "spatial costs, power 2",
    "spatial_1": "spatial costs, power 1",
}
SPLIT = ("none", "decay", "spatial")  # those that are split between the tasks
FACTORS = (3.0, 10.0, 30.0)  # of the cost of connections; that of proximity is 1
START_DISTANCE = 1.7725  # mean distance of two neurons at the start, sqrt(pi)
TASKS = np.repeat([0, 1], 10)  # of the outputs
NAMES = ("MNIST", "Fashion-MNIST")


def fashion() -> tuple[Any, Any]:
    """Return Fashion-MNIST, from the Debian package dataset-fashion-mnist or else from Keras."""
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


@functools.cache
def load() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return both data sets side by side: inputs (n, 1568) and labels (n, 2) for each split."""
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


def network(kind: str, variant: str, factor: float, seed: int) -> "keras.Model":
    """Make a `Spatial` model.

    Args:
        kind: One of NETWORKS.
        variant: One of VARIANTS.
        factor: Of the cost of connections. Weight decay is as strong as the transport cost of
            this factor would be at the start.
        seed: Of weights and positions.
    """
    import keras

    from snukeras.layers import PAPER, SNU, RateCoding, Spatial

    generator = keras.random.SeedGenerator(seed)
    sizes = (2 * 784, *HIDDEN, 20)
    positions, power = VARIANTS[variant]

    def arguments(place: int) -> dict[str, Any]:
        decay = None
        if place and power and not positions:
            mean = (len(sizes) - 2) * sizes[place] * sizes[place + 1]
            kind = keras.regularizers.L1 if power == 1 else keras.regularizers.L2
            decay = kind(factor * START_DISTANCE / mean)
        return {
            "kernel_initializer": keras.initializers.GlorotUniform(seed=generator),
            "kernel_regularizer": decay,
        }

    layers: list[Any] = [keras.Input((sizes[0],))]
    if kind == "snu":
        layers.append(RateCoding(STEPS, seed=seed))
    for place, units in enumerate(HIDDEN):
        name = f"hidden_{place + 1}"
        if kind == "snu":
            unit = {**PAPER, **arguments(place)}
            layers.append(SNU(units, return_sequences=True, name=name, **unit))
        else:
            layers.append(keras.layers.Dense(units, "sigmoid", name=name, **arguments(place)))
    layers.append(keras.layers.Dense(20, name="outputs", **arguments(len(HIDDEN))))
    if kind == "snu":
        layers.append(keras.layers.GlobalAveragePooling1D())
    return Spatial(
        keras.Sequential(layers),
        float(positions),
        factor if positions else 0.0,
        power=power if positions else 2,
        seed=seed + 1000,
    )


def train(kind: str, variant: str, factor: float, seed: int, data: dict[str, Any]) -> "keras.Model":
    """Train a network; arguments as for `network`."""
    import keras

    def both(y: Any, logits: Any) -> Any:
        return sum(
            keras.losses.sparse_categorical_crossentropy(
                y[:, task], logits[:, 10 * task : 10 * task + 10], from_logits=True
            )
            for task in range(2)
        )

    keras.utils.set_random_seed(seed)
    model = network(kind, variant, factor, seed)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), both)
    fit(model, kind, NETWORKS[kind]["epochs"], data)
    return model


def fit(
    model: "keras.Model", kind: str, epochs: int, data: dict[str, Any], **arguments: Any
) -> None:
    """Train a compiled model for some epochs more."""
    x, y = (part[: NETWORKS[kind]["images"]] for part in data["train"])
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, **arguments)


def accuracies(network: "keras.Model", data: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Return the accuracy of both tasks."""
    x, y = data
    logits = network.predict(x, batch_size=1000, verbose=0)
    return [
        float((logits[:, 10 * t : 10 * t + 10].argmax(axis=1) == y[:, t]).mean()) for t in range(2)
    ]


def after_split(model: Any, data: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Return the accuracy of each task with the neurons of the other silenced."""
    tasks = model.split(TASKS)
    return [accuracies(model.part(tasks, task), data)[task] for task in range(2)]


def measure(network: str, variant: str, factor: float, seed: int, split: str) -> dict[str, Any]:
    """Train a network and measure it on a split of the data; arguments else as for `train`."""
    data = load()
    model = train(network, variant, factor, seed, data)
    return {
        "before": accuracies(model.network, data[split]),
        "after": after_split(model, data[split]),
        "neurons": [np.bincount(t, minlength=2).tolist() for t in model.split(TASKS).values()],
        "proximity": float(model.proximity_cost()),
        "transport": float(model.transport_cost()),
    }


def search(folder: Path, kind: str) -> None:
    """Try the factors of each variant by the validation accuracy after the split."""
    cases = [
        {"network": kind, "variant": variant, "factor": factor, "seed": SEARCH_SEED}
        for variant in SPLIT[1:]
        for factor in FACTORS
    ]
    reporting.gather(folder / "search.json", cases, functools.partial(measure, split="valid"))


def searched(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return what `search` has tried for a kind; kinds without a search take that of "dense"."""
    runs: list[dict[str, Any]] = _files.read_json(folder / "search.json")["runs"]
    own = [run for run in runs if run["network"] == kind]
    return own or [run for run in runs if run["network"] == "dense"]


def chosen(folder: Path, kind: str, variant: str) -> float:
    """Return the factor that `search` has found best for a variant."""
    if variant == "none":
        return 0.0
    tried = [run for run in searched(folder, kind) if run["variant"] == variant]
    return float(max(tried, key=lambda run: float(np.mean(run["after"])))["factor"])


def experiment(folder: Path, kind: str, seeds: Sequence[int] = SEEDS) -> None:
    """Train and measure all variants; a run that was killed goes on after the last network."""
    factors = {variant: chosen(folder, kind, variant) for variant in SPLIT}
    cases = [
        {"network": kind, "variant": variant, "factor": factor, "seed": seed}
        for seed in seeds
        for variant, factor in factors.items()
    ]
    reporting.gather(folder / "results.json", cases, functools.partial(measure, split="test"))


def picture(folder: Path, kind: str) -> None:
    """Draw the neurons of the spatial network by task: neurons.png."""
    from matplotlib import pyplot as plt

    factor = chosen(folder, kind, "spatial")
    model = train(kind, "spatial", factor, 0, load())
    start = network(kind, "spatial", factor, 0).positions
    tasks = model.split(TASKS)
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 6.2), constrained_layout=True)
    for row, (when, positions) in zip(
        axes, (("at the start", start), ("trained", model.positions)), strict=True
    ):
        everyone = np.concatenate([*positions.values()])
        for axis, (name, p) in zip(row, positions.items(), strict=True):
            for task, (mark, colour) in enumerate((("o", "#0072B2"), ("x", "#D55E00"))):
                mine = tasks[name] == task
                axis.plot(*p[mine].T, mark, color=colour, ms=4, mfc="none", label=NAMES[task])
            axis.set(
                title=f"{name.replace('_', ' ')}, {when}",
                xlim=(everyone[:, 0].min() - 0.3, everyone[:, 0].max() + 0.3),
                ylim=(everyone[:, 1].min() - 0.3, everyone[:, 1].max() + 0.3),
            )
    for axis in axes[1]:
        axis.set_xlabel("position, without unit")
    axes[0, 0].legend(fontsize=8)
    reporting.save_picture(figure, folder / "neurons.png")


def table(root: Path | str | None = None) -> str:
    """Return the accuracies before and after the split as Markdown."""
    runs = _files.read_json(reporting.folder("spatial", root) / "results.json")["runs"]
    lines = [
        "| units | network | factor | MNIST before | Fashion before | MNIST after the split "
        "| Fashion after the split | neurons for MNIST, of the hidden ones | seeds |",
        "|" + "---|" * 9,
    ]
    for kind in NETWORKS:
        for variant in SPLIT:
            own = [run for run in runs if (run["network"], run["variant"]) == (kind, variant)]
            if not own:
                continue
            figures = [
                reporting.spread([100 * run[when][task] for run in own]) + " %"
                for when in ("before", "after")
                for task in range(2)
            ]
            neurons = [sum(layer[0] for layer in run["neurons"][:2]) for run in own]
            lines.append(
                f"| {UNITS[kind]} | {TITLES[variant]} | {own[0]['factor']:g} "
                f"| {' | '.join(figures)} | {np.mean(neurons):.0f} of {sum(HIDDEN)} | {len(own)} |"
            )
    return "\n".join(lines) + "\n"


def run_command(
    name: str, description: str, steps: dict[str, Callable[..., None]], argv: list[str] | None
) -> int:
    """Run steps of an experiment for some networks from the command line; 0 if all went well."""
    parser = reporting.parser(name, description, [*steps], SEEDS)
    parser.add_argument("--networks", nargs="+", choices=[*NETWORKS], default=["dense"])
    arguments = parser.parse_args(argv)
    for what in arguments.what:
        for kind in arguments.networks:
            more = {"seeds": arguments.seeds} if what == "run" else {}
            steps[what](arguments.results, kind, **more)
    return 0


@reporting.reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 if all went well."""
    return run_command(
        "spatial",
        "Two tasks in one spatial network, split after training.",
        {"search": search, "run": experiment, "picture": picture},
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
