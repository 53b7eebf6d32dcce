"""The search of settings: validation only, resumable, written down."""

import json

import pytest
import tiny_zoo
from tiny_zoo import make_task, write_recipe

from snukeras.zoo.publishing import publish
from snukeras.zoo.tasks import PianoRolls
from snukeras.zoo.training import search


class ValidationOnly(PianoRolls):
    def __init__(self):
        super().__init__("scales", "Scales", tiny_zoo.load, "0" * 64, "none needed")

    def evaluate(self, model, split, batch_size=128):
        assert split == "valid"
        return super().evaluate(model, split, batch_size)


def run(folder, vary, progress=lambda event: None, **arguments):
    tasks = {"scales": ValidationOnly()}
    return search.search(
        "tiny", vary, runs=folder / "runs", content=folder, progress=progress, tasks=tasks,
        **arguments,
    )  # fmt: skip


@pytest.mark.slow
def test_search(tmp_path):
    write_recipe(tmp_path)
    results = run(tmp_path, {"network.layers.1.rate": [0.1, 0.3]}, epochs=2)
    path = tmp_path / "results" / "search" / "tiny.json"
    assert json.loads(path.read_text()) == results
    assert [trial["settings"] for trial in results["trials"]] == [
        {"network.layers.1.rate": 0.1},
        {"network.layers.1.rate": 0.3},
    ]
    assert all(trial["valid"] > 0 and "test" not in trial for trial in results["trials"])
    assert results["trials"][0]["recipe"]["epochs"] == 2

    # What was tried is not tried again; what is new is added.
    epochs = []
    more = {"network.layers.1.rate": [0.3], "optimizer.learning_rate": [0.05, 1e9]}
    again = run(tmp_path, more, epochs=2, progress=lambda event: epochs.append(event["epoch"]))
    assert len(again["trials"]) == 3 and again["trials"][:2] == results["trials"]

    lines = search.table("tiny", tmp_path).splitlines()
    assert lines[0] == "| Dropout rate | learning rate | epochs | validation, nats per step |"
    assert len(lines) == 5
    assert "1000000000.0 | 2 | diverged |" in lines[4]
    assert any("0.3 | 0.05 | 2 |" in line and line.endswith(", chosen |") for line in lines)
    assert search.table(content=tmp_path).splitlines()[2].startswith("| `tiny` | 3 | ")

    best = min(again["trials"], key=lambda trial: trial["valid"] or 99)["recipe"]
    last = run(tmp_path, {"batch_size": [7]}, epochs=2, around_best=True)["trials"][-1]["recipe"]
    assert last == {**best, "batch_size": 7}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["start", "teacher"])
def test_a_setting_is_tried_again_with_other_weights(tmp_path, key):
    write_recipe(tmp_path, **{key: {"model": "other"}})
    for epochs in (1, 2):
        write_recipe(tmp_path, name="other", seeds=[0], epochs=epochs)
        publish.train_and_publish(
            "other", tmp_path, tmp_path / "runs",restart=True,
            progress=lambda event: None, tasks={"scales": make_task()},
        )  # fmt: skip
        for _ in range(2):
            trials = run(tmp_path, {"batch_size": [5]}, epochs=1)["trials"]
            assert len(trials) == epochs
    assert trials[0]["valid"] != trials[1]["valid"]


def test_place_that_the_recipe_does_not_have(tmp_path):
    write_recipe(tmp_path)
    with pytest.raises(ValueError, match=r"no such place. Received: 'network\.layers\.9\.units'"):
        run(tmp_path, {"network.layers.9.units": [3]})
    with pytest.raises(ValueError, match="unknown entries colour"):
        run(tmp_path, {"colour": [3]})
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("vary", [["epochs"], {"epochs": 3}, {"epochs": "34"}])
def test_what_to_vary_is_lists_by_place(tmp_path, vary):
    write_recipe(tmp_path)
    with pytest.raises(ValueError, match="list of values for each place"):
        run(tmp_path, vary)
