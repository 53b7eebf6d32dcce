"""Spatial networks on tiles: pruning, orders, traffic, and what validation allows."""

import itertools

import numpy as np
import pytest

from experiments import spatial, spatial_tiles
from snukeras import _files


@pytest.mark.parametrize("kind", spatial.NETWORKS)
def test_pruned_weights_are_the_smallest_and_stay_0(kind, monkeypatch, two_tasks):
    monkeypatch.setattr(spatial, "NETWORKS", {kind: {"epochs": 1, "images": 40}})
    data = two_tasks
    model = spatial.train(kind, "spatial", 10.0, 0, data)
    before = spatial_tiles.matrices(model)
    hold = spatial_tiles.prune(model, 0.75)
    after = spatial_tiles.matrices(model)
    for old, new in zip(before, after, strict=True):
        assert np.mean(new == 0) == 0.75
        assert np.abs(old[new == 0]).max() <= np.abs(new[new != 0]).min()
    spatial.fit(model, kind, 2, data, callbacks=[hold])
    for old, new in zip(after, spatial_tiles.matrices(model), strict=True):
        np.testing.assert_array_equal(new[old == 0], 0.0)
        assert (new != old).mean() > 0.2


def test_bisection_finds_clusters_by_positions_and_by_weights():
    random = np.random.default_rng(0)
    clusters = [random.permutation(np.repeat(np.arange(4), n)) for n in (32, 16, 4)]
    weights = [
        (a[:, None] == b) * random.uniform(0.5, 1.0, (len(a), len(b)))
        for a, b in itertools.pairwise(clusters)
    ]
    corners = np.array([[-5.0, -2.0], [-5.0, 2.0], [5.0, -2.0], [5.0, 2.0]])
    positions = [corners[c] + random.normal(size=(len(c), 2)) * 0.1 for c in clusters]
    start = [np.arange(len(c)) for c in clusters]
    found = {
        name: spatial_tiles.bisected(start, scores)
        for name, scores in (
            ("position", spatial_tiles.along_positions(positions)),
            ("spectrum", spatial_tiles.along_spectrum(weights)),
        )
    }
    for order in found.values():
        assert [sorted(o) for o in order] == [[*range(len(c))] for c in clusters]
        # Each quarter of the order of each layer is one cluster, the same in all layers.
        quarters = [c[o].reshape(4, -1) for c, o in zip(clusters, order, strict=True)]
        for quarter in quarters:
            assert (quarter == quarter[:, :1]).all()
            np.testing.assert_array_equal(quarter[:, 0], quarters[0][:, 0])
        assert spatial_tiles.crossing(weights, order, 32)["tiles"] == 4 + 2
    trained = spatial_tiles.crossing(weights, start, 32)
    assert trained["tiles"] == 4 * 2 + 2
    assert trained["values"] > spatial_tiles.crossing(weights, found["position"], 32)["values"]


def test_full_matrices_send_all_values():
    full = [np.ones((128, 128)), np.ones((128, 20))]
    order = [np.arange(n) for n in (128, 128, 20)]
    assert spatial_tiles.crossing(full, order, 32) == {
        "values": 128 * 4 + 128 + 128 * 3 + 20 * 3,
        "tiles": 20,
    }


def test_the_deepest_level_is_held_to_the_best_network_without_costs():
    def run(variant, *valid):
        levels = [{"share": share / 10, "valid": v} for share, v in enumerate(valid)]
        return {"network": "dense", "variant": variant, "seed": 0, "levels": levels}

    runs = [run("none", 0.9, 0.91, 0.8), run("spatial", 0.905, 0.9051, 0.904)]
    assert spatial_tiles.deepest(runs[0], runs)["share"] == 0.1
    assert spatial_tiles.deepest(runs[1], runs)["share"] == 0.1
    runs[1] = run("spatial", 0.90, 0.9)
    assert spatial_tiles.deepest(runs[1], runs) is None


def test_it_runs_and_goes_on_where_it_stood(tmp_path, monkeypatch, two_tasks):
    monkeypatch.setattr(spatial, "load", lambda: two_tasks)
    monkeypatch.setattr(spatial, "NETWORKS", {"dense": {"epochs": 1, "images": 20}})
    monkeypatch.setattr(spatial, "VARIANTS", {"none": (False, 0), "spatial_1": (True, 1)})
    monkeypatch.setattr(spatial_tiles, "FACTORS", {0: (0.0,), 1: (1.0,)})
    monkeypatch.setattr(spatial_tiles, "SHARES", (0.9,))
    monkeypatch.setattr(spatial_tiles, "LOST", 1.0)
    folder = tmp_path / "spatial_tiles"
    folder.mkdir(parents=True)
    spatial_tiles.search(folder, "dense")
    searched = _files.read_json(folder / "search.json")["runs"]
    assert all("test" not in level for run in searched for level in run["levels"])
    spatial_tiles.experiment(folder, "dense", [0])
    monkeypatch.setattr(spatial, "train", None)  # nothing is left to train
    spatial_tiles.search(folder, "dense")
    spatial_tiles.experiment(folder, "dense", [0])
    for part, rows in (("sparsity", 2), ("chosen", 2 * 2)):
        lines = spatial_tiles.table(part, tmp_path).splitlines()
        assert len(lines) == 2 + rows
        assert len({line.count("|") for line in lines}) == 1
