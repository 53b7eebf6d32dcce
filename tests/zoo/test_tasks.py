"""Tasks: the batches that training sees, and the figure."""

import dataclasses

import keras
import numpy as np
import pytest
from tiny_zoo import load, make_recipe, make_task

from snukeras.zoo import recipes
from snukeras.zoo.tasks import TASKS


def batches(epochs, first_epoch=0, seed=5, **changes):
    recipe = recipes.check(make_recipe(epochs=epochs, **changes))
    dataset = make_task().training_data(recipe, seed, first_epoch)
    return [tuple(np.array(array) for array in batch) for batch in dataset]


def found(batch):
    """The songs of a batch, as numbers of training songs."""
    x, y, weights = batch
    train = load()[0]
    numbers = []
    for row in range(len(x)):
        steps = int(weights[row].sum())
        song = np.concatenate([x[row, :1], y[row, :steps]])
        numbers += [i for i, s in enumerate(train) if len(s) == len(song) and (s == song).all()]
    return numbers


def test_each_song_once_an_epoch_in_another_order():
    made = batches(2)
    assert len(made) == 8
    epochs = [[found(batch) for batch in made[:4]], [found(batch) for batch in made[4:]]]
    for epoch in epochs:
        assert sorted(len(batch) for batch in epoch) == [3, 3, 3, 4]
        assert sorted(song for batch in epoch for song in batch) == list(range(13))
    assert epochs[0] != epochs[1]


def test_order_depends_on_seed_and_epoch_alone():
    whole = batches(3)
    resumed = batches(3, first_epoch=1)
    assert len(resumed) == 8
    for one, other in zip(whole[4:], resumed, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert [found(b) for b in batches(1, seed=6)] != [found(b) for b in whole[:4]]


def test_padding():
    longest = max(len(song) for song in load()[0]) - 1
    for x, y, weights in batches(3):
        needed = int(weights.sum(axis=1).max())
        length = min(n for n in (8, 12, longest) if n >= needed)
        assert x.shape[1] == y.shape[1] == weights.shape[1] == length
    assert {x.shape[1] for x, _, _ in batches(2, padding=None)} == {longest}


def test_one_length_is_static():
    for padding, length in ((None, max(len(song) for song in load()[0]) - 1), ([8], None)):
        recipe = recipes.check(make_recipe(padding=padding))
        x, _, weights = make_task().training_data(recipe, 0).element_spec
        assert x.shape.as_list() == [None, length, 88]
        assert weights.shape.as_list() == [None, length]


@pytest.mark.slow
@pytest.mark.some_cases(1)
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_figure(split):
    task = make_task()
    model = recipes.network(recipes.check(make_recipe()), 0)
    model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    total = steps = 0
    for song in task.songs[split]:
        p = model.predict(song[None, :-1].astype(np.float32), verbose=0)[0].astype(np.float64)
        total -= np.log(np.where(song[1:], p, 1 - p)).sum()
        steps += len(song) - 1
    np.testing.assert_allclose(task.evaluate(model, split), total / steps, rtol=1e-5)
    np.testing.assert_allclose(task.evaluate(model, split, 2), total / steps, rtol=1e-5)


def test_loss_takes_the_arguments_of_the_recipe():
    assert make_task().loss({"label_smoothing": 0.25}).label_smoothing == 0.25
    assert isinstance(make_task().loss({}), keras.losses.Loss)


def test_window_cuts_songs_into_pieces_that_lose_no_step():
    task = make_task()
    recipe = recipes.check(make_recipe(data={"window": 5}, padding=None, epochs=3))
    songs = task.songs["train"]
    batches = list(task.training_data(recipe, seed=1))
    assert len(batches) == 3 * task.steps_per_epoch(recipe)
    predicted = sum(len(song) - 1 for song in songs)
    epochs = [
        batches[i : i + task.steps_per_epoch(recipe)]
        for i in range(0, len(batches), task.steps_per_epoch(recipe))
    ]
    for epoch in epochs:
        assert all(x.shape[1] == 5 for x, _, _ in epoch)
        assert sum(float(np.sum(mask)) for _, _, mask in epoch) == predicted
        # Scales rise by two keys a step: what is predicted goes on where the input ends.
        for x, y, mask in epoch:
            at = np.asarray(mask, bool)
            np.testing.assert_array_equal((np.argmax(x, -1)[at] + 2) % 88, np.argmax(y, -1)[at])
    shapes = [sorted(int(np.sum(m)) for _, _, mask in epoch for m in mask) for epoch in epochs]
    assert shapes[0] != shapes[1]  # each epoch cuts elsewhere
    again = list(task.training_data(recipe, seed=1, first_epoch=2))
    for (a, _, _), (b, _, _) in zip(again, epochs[2], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("data", [{"window": 0}, {"window": "5"}, {"length": 5}])
def test_data_of_another_kind(data):
    with pytest.raises(ValueError, match="may hold `window`"):
        make_task().steps_per_epoch(recipes.check(make_recipe(data=data)))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_part_of_the_test_split_is_taken_from_data_at_hand_alone(name, monkeypatch, tmp_path):
    monkeypatch.delenv("SNUKERAS_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("downloads"))
    assert dataclasses.replace(TASKS[name]).part() is None
    monkeypatch.setenv("SNUKERAS_DATA", str(tmp_path))
    assert dataclasses.replace(TASKS[name]).part() is None


@pytest.mark.parametrize("name", ["jsb_chorales", "mnist", "nottingham", "penn_treebank"])
def test_a_part_of_the_test_split(name, data_folder):
    part = TASKS[name].part()
    assert "of the test split of " + TASKS[name].title in part.what
    for x, y in zip(part.inputs, part.targets, strict=True):
        if part.metric == "accuracy":
            assert y.shape == x.shape[:1] and set(y.tolist()) == set(range(10))
        else:
            assert y.shape == x.shape
            np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    if part.metric == "frame_nll":  # a forecast runs them some forty times
        assert 300 < sum(x.shape[1] for x in part.inputs) <= 600
