"""The experiment on spatial networks: accuracy, pruning, orders and traffic."""

import itertools

import numpy as np
import pytest

from snukeras.experiments import spatial


@pytest.fixture
def model():
    return spatial.network("spatial", 10.0, 1)


def test_accuracy_is_that_of_the_network(model):
    random = np.random.default_rng(0)
    x = random.random((50, 1568)).astype("float32")
    logits = np.asarray(model.network(x))
    y = np.stack([logits[:, :10].argmax(axis=1), logits[:, 10:].argmax(axis=1)], axis=1)
    y[:10, 1] += 1
    assert spatial.accuracies(model.network.get_weights(), (x, y)) == [1.0, 0.8]
    weights, share = spatial.pruned(model, (x, y))
    assert np.mean(spatial.accuracies(weights, (x, y))) >= 0.9 - spatial.LOST
    zeros = np.mean(np.asarray(weights[2]) == 0)
    assert zeros == pytest.approx(share, abs=0.01) or share == 0.0


def test_neurons_in_order_of_their_places_need_less_traffic(model):
    orders = spatial.orders(model)
    for order in orders.values():
        assert [sorted(o) for o in order] == [[*range(n)] for n in (128, 128, 20)]
    weights = model.network.get_weights()
    full = spatial.crossing(weights, orders["trained"])
    assert full == {"inputs": 128 * 4 + 128, "partial_sums": 128 * 3 + 20 * 3, "tiles": 20}
    # Only neurons near each other are connected.
    places = [*model.positions.values()]
    for index, (before, after) in enumerate(itertools.pairwise(places)):
        distances = np.linalg.norm(before[:, None] - after[None], axis=-1)
        weights[2 + 2 * index] *= distances < 0.3
    near, random = (spatial.crossing(weights, orders[name]) for name in ("position", "trained"))
    assert near["inputs"] + near["partial_sums"] < 0.9 * (random["inputs"] + random["partial_sums"])


def test_variants_differ_in_their_losses():
    for variant, costs in (("none", 0), ("decay", 2), ("spatial", 2)):
        model = spatial.network(variant, 1.0, 0)
        model(np.zeros((1, 1568), "float32"))
        assert len(model.losses) == costs
