"""The experiment on spatial networks: accuracy, variants, choices, and that it goes on."""

import numpy as np
import pytest

from experiments import spatial


@pytest.mark.parametrize("kind", spatial.NETWORKS)
def test_accuracy_is_that_of_the_network(kind, two_tasks):
    network = spatial.network(kind, "spatial", 10.0, 1).network
    x = two_tasks["test"][0]
    logits = np.asarray(network(x))
    y = np.stack([logits[:, :10].argmax(axis=1), logits[:, 10:].argmax(axis=1)], axis=1)
    y[:10, 1] += 1
    assert spatial.accuracies(network, (x, y)) == [1.0, 0.75]


def test_variants_differ_in_their_losses():
    for variant, (positions, power) in spatial.VARIANTS.items():
        model = spatial.network("dense", variant, 3.0, 0)
        model(np.zeros((1, 1568), "float32"))
        assert len(model.losses) == (2 if power else 0)
        if power and not positions:
            # As strong as the transport cost at the start, for distances of the mean there.
            same = spatial.network("dense", {1: "spatial_1", 2: "spatial"}[power], 3.0, 0)
            assert float(sum(model.losses)) == pytest.approx(
                3.0 * float(same.transport_cost()), rel=0.1
            )


def test_it_chooses_by_validation_and_goes_on_where_it_stood(tmp_path, monkeypatch):
    seen = []

    def measure(network, variant, factor, seed, split):
        seen.append((variant, factor, seed, split))
        after = [0.5 + 0.1 * (factor == 10.0), 0.5]
        return {"before": [0.9, 0.8], "after": after, "neurons": [[70, 58]] * 3}

    monkeypatch.setattr(spatial, "measure", measure)
    folder = tmp_path / "spatial"
    folder.mkdir(parents=True)
    for _ in range(2):
        spatial.search(folder, "dense")
        spatial.experiment(folder, "dense", [0, 1])
    assert spatial.chosen(folder, "dense", "spatial") == 10.0
    # A network without a search of its own takes what was chosen for the first.
    assert spatial.chosen(folder, "snu", "spatial") == 10.0
    assert len(seen) == len(set(seen)) == 2 * len(spatial.FACTORS) + 2 * 3
    assert {split for _, _, seed, split in seen if seed == spatial.SEARCH_SEED} == {"valid"}
    rows = spatial.table(tmp_path).splitlines()
    assert len(rows) == 2 + 3
    assert rows[-1].startswith("| sigmoid | spatial costs, power 2 | 10 | 90.00 ± 0.00 % ")


def test_the_split_silences_the_other_task(two_tasks):
    model = spatial.network("dense", "spatial", 1.0, 0)
    data = two_tasks["test"]
    tasks = model.split(spatial.TASKS)
    after = [spatial.accuracies(model.part(tasks, task), data)[task] for task in range(2)]
    assert spatial.after_split(model, data) == after
