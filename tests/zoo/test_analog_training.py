"""Recipes with `analog`: trained on tiles, chosen by chips, shipped as the plain network."""

import shutil

import numpy as np
import pytest
from tiny_zoo import make_recipe, make_task, write_recipe

from snukeras.pcm import AnalogNetwork, OutputConverter
from snukeras.zoo import recipes, training
from snukeras.zoo.tasks import TASKS, PianoRolls

ANALOG = {
    "tile": {"rows": 64, "output": {"bits": 6, "noise": 0.04}},
    "device": {"class": "GenericPCM"},
    "clip": 2.5,
    "modifiers": [{"kind": "pcm", "strength": 1.0, "time": 86400.0}],
    "samples": 4,
    "chips": 2,
    "time": 86400.0,
}


def train(content, runs, progress=lambda event: None, task=None):
    tasks = {"scales": task or make_task()}
    return training.train("next", content, runs, progress=progress, tasks=tasks)


class Watched(PianoRolls):
    """A task that notes what is measured."""

    def evaluate(self, model, split, batch_size=128):
        self.measured = [*getattr(self, "measured", ()), (split, model)]
        return super().evaluate(model, split, batch_size)


@pytest.fixture(scope="module")
def content(small_zoo, tmp_path_factory):
    """The tiny zoo with a recipe that starts from its preset and trains on tiles."""
    folder = tmp_path_factory.mktemp("analog") / "content"
    shutil.copytree(small_zoo[0], folder)
    return write_recipe(
        folder, name="next", seeds=[0], epochs=2, start={"model": "tiny"}, analog=ANALOG
    )


@pytest.mark.slow
def test_chips_choose_and_the_plain_network_ships(content, tmp_path):
    def stop(event):
        if event["epoch"] == 1:
            raise KeyboardInterrupt

    task = Watched("scales", "Scales", make_task().load, "0" * 64, "none needed")
    whole = train(content, tmp_path / "whole", task=task)
    # Two chips an epoch, then the plain weights on validation and, once, on test.
    assert [split for split, _ in task.measured] == ["valid"] * 5 + ["test"]
    kinds = [isinstance(model, AnalogNetwork) for _, model in task.measured]
    assert kinds == [True] * 4 + [False] * 2
    assert task.measured[0][1].tile.output == OutputConverter(6, noise=0.04)
    (seed,) = whole["seeds"]
    assert seed["valid_on_chips"] == pytest.approx(min(seed["history"]["valid"]), abs=1e-5)
    assert seed["valid"] != seed["valid_on_chips"]

    with pytest.raises(KeyboardInterrupt):
        train(content, tmp_path / "parts", progress=stop)
    parts = train(content, tmp_path / "parts")
    assert parts["seeds"][0].pop("seconds") and seed.pop("seconds")
    assert parts == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": None}, "`analog` needs a `start`.*Received: no start"),
        ({"quick_lstm": True}, "Received: quick_lstm"),
        ({"analog": {"bits": 8}}, "`analog` has to hold tile, .*Received: bits"),
        ({"analog": {"chips": 0}}, "`chips` must be an integer of at least 1. Received: 0"),
        ({"analog": {"time": -1.0}}, "`analog`: .*time"),
        ({"analog": {"tile": "generic9"}}, "cannot make its tiles: .*'generic9'"),
        ({"analog": {"tile": {"output": {"noise": -1.0}}}}, "cannot make its tiles: .*noise"),
        ({"analog": {"device": {"class": "PCM"}}}, "no device model 'PCM'"),
        ({"analog": {"modifiers": [{"kind": "pcm"}]}}, "cannot make its tiles: .*strength"),
    ],
)
def test_refused(changes, message):
    made = {"start": {"model": "tiny"}, "analog": ANALOG, **changes}
    with pytest.raises(ValueError, match=message):
        recipe = recipes.check(make_recipe(**made))
        recipes.tiles(recipe, None, np.zeros((1, 4, 88)), 0)


def test_a_task_without_samples_of_one_array():
    with pytest.raises(ValueError, match="penn_treebank has no samples of one array"):
        TASKS["penn_treebank"].typical_inputs()
