"""Spatial networks on tiles: do they need less traffic between tiles, at equal sparsity?

    python -m experiments.spatial_tiles search run

The networks of `experiments.spatial`, with more variants: both powers of the costs, with
and without positions. After training, the smallest weights of the matrices between neurons are
pruned, in four rounds, and what is left trains on after each, with the pruned ones held at 0. Then
the exporter's placement cuts the matrices into tiles, with the neurons in several orders:

- trained: as they are;
- shuffled: in a random order;
- task: by the greedy split between the tasks;
- spectrum: by recursive bisection of the graph of the weights left, without positions;
- position: by recursive bisection of the positions.

The first matrix is left out: its inputs come from outside in any case. `search` chooses the factor
of each variant with a seed of its own; the test split has no say in anything.
"""

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import reporting, spatial
from snukeras import _files

if TYPE_CHECKING:
    import keras

SHARES = (0.8, 0.9, 0.95, 0.98)  # of the weights of each matrix, pruned one after the other
RETRAINING = 2  # epochs after each
LOST = 0.005  # of validation accuracy, that costs and pruning together may cost
TILES = (32, 16)  # word lines, and pairs of bit lines
ORDERS = ("trained", "shuffled", "task", "spectrum", "position")
# Of the cost of connections, by the power of |w|.
FACTORS = {0: (0.0,), 1: (3.0, 10.0, 30.0), 2: (3.0, 10.0, 30.0, 100.0)}
# By which neurons are ordered where a layout is to be had from the network alone.
LAYOUT = {True: "position", False: "spectrum"}


def kernels(model: Any) -> list[Any]:
    """Return the kernels between neurons, as variables."""
    layers = [model.network.get_layer(c.target) for c in model.connections if not c.recurrent]
    return [getattr(layer, "cell", layer).kernel for layer in layers]


def matrices(model: Any) -> list[np.ndarray]:
    """Return the weights between neurons."""
    return [np.asarray(kernel) for kernel in kernels(model)]


def prune(model: Any, share: float) -> "keras.callbacks.Callback":
    """Set the smallest weights of each matrix to 0.

    Args:
        model: A `Spatial` model.
        share: Of the weights of each matrix.

    Returns:
        A callback that holds them at 0 while the rest trains.
    """
    import keras

    masks = []
    for kernel in kernels(model):
        size = np.abs(np.asarray(kernel))
        # By rank, since weights that are 0 already are equal.
        keep = np.ones(size.size, "float32")
        keep[np.argsort(size, axis=None, kind="stable")[: round(share * size.size)]] = 0.0
        masks.append(keep.reshape(size.shape))

    def hold(*_: Any, **__: Any) -> None:
        for kernel, mask in zip(kernels(model), masks, strict=True):
            kernel.assign(kernel * mask)

    hold()
    return keras.callbacks.LambdaCallback(on_train_batch_end=hold)


def bisected(
    groups: list[np.ndarray], scores: Callable[[list[np.ndarray]], list[np.ndarray]]
) -> list[np.ndarray]:
    """Order the neurons of several layers by recursive bisection.

    All layers are halved together, each at its own median, so that equal parts of their orders
    belong together.

    Args:
        groups: Indices of neurons, for each layer.
        scores: Gives each neuron of such groups a number; the lower ones come first.
    """
    if max(len(group) for group in groups) <= 1:
        return groups
    ordered = [
        group[np.argsort(score, kind="stable")]
        for group, score in zip(groups, scores(groups), strict=True)
    ]
    halves = (
        [group[: (len(group) + 1) // 2] for group in ordered],
        [group[(len(group) + 1) // 2 :] for group in ordered],
    )
    first, second = (bisected(half, scores) for half in halves)
    return [np.concatenate(pair) for pair in zip(first, second, strict=True)]


def along_positions(positions: Sequence[np.ndarray]) -> Callable[..., list[np.ndarray]]:
    """Score along the direction in which the neurons of all layers spread the most."""

    def scores(groups: list[np.ndarray]) -> list[np.ndarray]:
        everyone = np.concatenate([p[group] for p, group in zip(positions, groups, strict=True)])
        axis = np.linalg.svd(everyone - everyone.mean(axis=0), full_matrices=False)[2][0]
        return [p[group] @ axis for p, group in zip(positions, groups, strict=True)]

    return scores


def along_spectrum(weights: Sequence[np.ndarray]) -> Callable[..., list[np.ndarray]]:
    """Score by the second eigenvector of the graph of |weights| (the Fiedler vector).

    Cutting the graph at its median is the classic spectral bisection.
    """

    def scores(groups: list[np.ndarray]) -> list[np.ndarray]:
        edges = np.cumsum([0, *(len(group) for group in groups)])
        graph = np.zeros((edges[-1], edges[-1]))
        for layer, matrix in enumerate(weights):
            block = np.abs(matrix[np.ix_(groups[layer], groups[layer + 1])])
            graph[edges[layer] : edges[layer + 1], edges[layer + 1] : edges[layer + 2]] = block
        graph = graph + graph.T
        # Connect the graph weakly so that its second eigenvector is unique.
        graph += 1e-3 * graph.mean() + 1e-12
        root = 1.0 / np.sqrt(graph.sum(axis=1))
        vectors = np.linalg.eigh(np.eye(len(graph)) - root[:, None] * graph * root)[1]
        return np.split(root * vectors[:, 1], edges[1:-1])

    return scores


def orders(model: Any, seed: int) -> dict[str, list[np.ndarray]]:
    """Return orders of the neurons of each layer, by name; `seed` is for the shuffled one."""
    positions = [*model.positions.values()]
    random = np.random.default_rng(seed)
    trained = [np.arange(len(p)) for p in positions]
    return {
        "trained": trained,
        "shuffled": [random.permutation(order) for order in trained],
        "task": [np.argsort(t, kind="stable") for t in model.split(spatial.TASKS).values()],
        "spectrum": bisected(trained, along_spectrum(matrices(model))),
        "position": bisected(trained, along_positions(positions)),
    }


def crossing(
    weights: Sequence[np.ndarray], order: Sequence[np.ndarray], side: int
) -> dict[str, int]:
    """Count values between tiles of `side` rows and columns for each input, and the tiles."""
    from snukeras.export.crossbar.placement import place, traffic
    from snukeras.export.crossbar.targets import load_target

    target = load_target("pcm").replace(rows=side, columns=side, crosspoint="pair")
    ordered = [matrix[order[index]][:, order[index + 1]] for index, matrix in enumerate(weights)]
    counts = traffic(place([matrix.shape for matrix in ordered], target), ordered)
    values = sum(count["inputs"] + count["partial_sums"] for count in counts)
    return {"values": values, "tiles": sum(count["tiles"] for count in counts)}


def measure(network: str, variant: str, factor: float, seed: int, test: bool) -> dict[str, Any]:
    """Train and prune a network; return accuracy and traffic before and after each pruning.

    Args:
        network, variant, factor, seed: As for `spatial.train`.
        test: Whether to look at the test split.
    """
    data = spatial.load()
    model = spatial.train(network, variant, factor, seed, data)
    levels = []
    for share in (0.0, *SHARES):
        if share:
            spatial.fit(model, network, RETRAINING, data, callbacks=[prune(model, share)])
        weights = matrices(model)
        level = {
            "share": share,
            "zeros": float(np.mean(np.concatenate([w.ravel() for w in weights]) == 0.0)),
            "valid": float(np.mean(spatial.accuracies(model.network, data["valid"]))),
            "crossing": {
                name: {str(side): crossing(weights, order, side) for side in TILES}
                for name, order in orders(model, seed).items()
            },
        }
        if test:
            level["test"] = float(np.mean(spatial.accuracies(model.network, data["test"])))
        levels.append(level)
    return {"levels": levels}


def deepest(run: dict[str, Any], runs: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the level with the most pruned that validation allows, or None.

    It may lose LOST against the best that the network without costs of the same seed has at any
    level. So a cost that takes accuracy pays for it with weights.
    """
    (free,) = (
        other for other in runs
        if (other["network"], other["variant"], other["seed"])
        == (run["network"], "none", run["seed"])
    )  # fmt: skip
    limit = max(level["valid"] for level in free["levels"]) - LOST
    return max(
        (level for level in run["levels"] if level["valid"] >= limit),
        key=lambda level: float(level["share"]),
        default=None,
    )


def values(level: dict[str, Any], variant: str, side: int = TILES[0]) -> int:
    """Return the values between tiles in a variant's layout: by position, else by spectrum."""
    layout = LAYOUT[spatial.VARIANTS[variant][0]]
    return int(level["crossing"][layout][str(side)]["values"])


def search(folder: Path, kind: str) -> None:
    """Train each variant with each factor, with a seed of its own."""
    cases = [
        {"network": kind, "variant": variant, "factor": factor, "seed": spatial.SEARCH_SEED}
        for variant, (_, power) in spatial.VARIANTS.items()
        for factor in FACTORS[power]
    ]
    reporting.gather(folder / "search.json", cases, functools.partial(measure, test=False))


def chosen(folder: Path, kind: str, variant: str) -> float:
    """Return the factor of a variant with the least traffic at its `deepest` level."""
    runs = spatial.searched(folder, kind)
    tried = {
        run["factor"]: level
        for run in runs
        if run["variant"] == variant and (level := deepest(run, runs)) is not None
    }
    if not tried:
        raise ValueError(
            f"No factor keeps the accuracy of {variant}. Search with smaller ones. Received: "
            f"{FACTORS}"
        )
    return float(min(tried, key=lambda factor: values(tried[factor], variant)))


def experiment(folder: Path, kind: str, seeds: Sequence[int] = spatial.SEEDS) -> None:
    """Train, prune and measure all variants; a run that was killed goes on after the last one."""
    factors = {variant: chosen(folder, kind, variant) for variant in spatial.VARIANTS}
    cases = [
        {"network": kind, "variant": variant, "factor": factor, "seed": seed}
        for seed in seeds
        for variant, factor in factors.items()
    ]
    reporting.gather(folder / "results.json", cases, functools.partial(measure, test=True))


def _own(runs: list[dict[str, Any]]) -> Iterable[tuple[str, str, list[dict[str, Any]]]]:
    """Iterate over the runs of each network and variant that has some."""
    for kind in spatial.NETWORKS:
        for variant in spatial.VARIANTS:
            own = [run for run in runs if (run["network"], run["variant"]) == (kind, variant)]
            if own:
                yield kind, variant, own


def _crossings(levels: Sequence[dict[str, Any]], variant: str, side: int) -> list[str]:
    """Return the values between tiles for each order; positions count where they train."""
    return [
        reporting.spread([level["crossing"][order][str(side)]["values"] for level in levels], ".0f")
        if order != "position" or spatial.VARIANTS[variant][0]
        else ""
        for order in ORDERS
    ]


def _sparsity(runs: list[dict[str, Any]]) -> Iterable[list[str]]:
    yield ["units", "network", "factor", "weights pruned", "accuracy", *ORDERS]
    for kind, variant, own in _own(runs):
        for place, share in enumerate(SHARES, start=1):
            levels = [run["levels"][place] for run in own]
            yield [
                *(spatial.UNITS[kind], spatial.TITLES[variant], f"{own[0]['factor']:g}"),
                f"{100 * share:.0f} %",
                reporting.spread([100 * level["test"] for level in levels]) + " %",
                *_crossings(levels, variant, TILES[0]),
            ]


def _chosen(runs: list[dict[str, Any]]) -> Iterable[list[str]]:
    yield [
        *("units", "network", "seeds", "tiles of", "weights pruned", "accuracy", *ORDERS),
        "tiles needed",
    ]
    for kind, variant, own in _own(runs):
        levels = [level for run in own if (level := deepest(run, runs)) is not None]
        layout = LAYOUT[spatial.VARIANTS[variant][0]]
        for side in TILES:
            row = [spatial.UNITS[kind], spatial.TITLES[variant], f"{len(levels)} of {len(own)}"]
            if not levels:
                yield [*row, f"{side}", "none is near enough", *[""] * (len(ORDERS) + 2)]
                continue
            tiles = [level["crossing"][layout][str(side)]["tiles"] for level in levels]
            yield [
                *(*row, f"{side}"),
                reporting.spread([100 * level["share"] for level in levels], ".0f") + " %",
                reporting.spread([100 * level["test"] for level in levels]) + " %",
                *_crossings(levels, variant, side),
                f"{reporting.spread(tiles, '.1f')}, by {layout}",
            ]


def crossings(
    kind: str, variant: str, order: str, root: Path | str | None = None
) -> list[list[int]]:
    """Return the values between tiles at each of SHARES, a list over the seeds for each.

    Args:
        kind, variant: Of `spatial.NETWORKS` and `spatial.VARIANTS`.
        order: One of ORDERS.
        root: Folder of all results. Default: `experiments/results` of the checkout.
    """
    path = reporting.folder("spatial_tiles", root) / "results.json"
    runs = [
        run
        for run in _files.read_json(path)["runs"]
        if (run["network"], run["variant"]) == (kind, variant)
    ]
    return [
        [run["levels"][place]["crossing"][order][str(TILES[0])]["values"] for run in runs]
        for place in range(1, len(SHARES) + 1)
    ]


def _short(runs: list[dict[str, Any]]) -> Iterable[list[str]]:
    """Yield the traffic of the sigmoid networks at the third share of pruned weights."""
    place = 3
    yield [
        f"{100 * SHARES[place - 1]:.0f} % of the weights pruned",
        *("accuracy", "order as trained", "ordered by position", "ordered by spectrum"),
    ]
    for kind, variant, own in _own(runs):
        if kind == "dense":
            levels = [run["levels"][place] for run in own]
            cells = dict(zip(ORDERS, _crossings(levels, variant, TILES[0]), strict=True))
            yield [
                spatial.TITLES[variant],
                reporting.spread([100 * level["test"] for level in levels]) + " %",
                *(cells[order] or "-" for order in ("trained", "position", "spectrum")),
            ]


def table(part: str = "sparsity", root: Path | str | None = None) -> str:
    """Return a table as Markdown.

    Args:
        part: "sparsity": traffic of all variants at each share of pruned weights; or "chosen": at
            the share that validation allows; or "short": that of sigmoid units at one share.
        root: Folder of all results. Default: `experiments/results` of the checkout.
    """
    path = reporting.folder("spatial_tiles", root) / "results.json"
    runs = _files.read_json(path)["runs"]
    rows = [*{"sparsity": _sparsity, "chosen": _chosen, "short": _short}[part](runs)]
    rows.insert(1, ["---"] * len(rows[0]))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@reporting.reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 if all went well."""
    return spatial.run_command(
        "spatial_tiles",
        "Traffic between tiles of spatial networks and of others, at equal sparsity.",
        {"search": search, "run": experiment},
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
