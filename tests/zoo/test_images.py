"""The task of digits: batches, figure, golden inputs."""

import keras
import numpy as np
import pytest

from snukeras.zoo import recipes
from snukeras.zoo.publishing import publish
from snukeras.zoo.tasks import Digits
from snukeras.zoo.tasks import images as images_module
from snukeras.zoo.tasks.images import draw


class Drawn(Digits):
    """Digits that were drawn, with noise, in place of MNIST."""

    def _load(self):
        rng = np.random.default_rng(0)
        splits = []
        for count in (130, 30):
            y = np.arange(count, dtype=np.uint8) % 10
            x = np.stack([draw(digit)[..., 0] for digit in y])
            noisy = 200 * x + rng.integers(0, 50, x.shape)
            splits.append((noisy.astype("uint8"), y))
        return tuple(splits)


@pytest.fixture
def task(monkeypatch):
    monkeypatch.setattr(images_module, "VALIDATION", 30)
    return Drawn()


def recipe(**changes):
    return recipes.check(
        {
            "format": 1,
            "name": "tiny",
            "title": "A tiny network",
            "description": "For the tests.",
            "licence": "Apache-2.0",
            "task": "mnist",
            "network": {
                "input": "image",
                "input_shape": [28, 28, 1],
                "layers": [
                    {"class": "ElasticDistortion", "alpha": 5.0, "seed": 0},
                    {"class": "Flatten"},
                    {"class": "RateCoding", "steps": 6, "training_steps": 3, "seed": 0},
                    {
                        "class": "SSNU",
                        "units": 10,
                        "state_activation": "linear",
                        "return_sequences": True,
                    },
                    {"class": "GlobalAveragePooling1D"},
                ],
            },
            "optimizer": {"class": "Adam", "learning_rate": 0.002},
            "epochs": 3,
            "batch_size": 16,
            "seeds": [0],
            **changes,
        }
    )


def test_splits(task):
    assert [len(task.samples[split][0]) for split in ("train", "valid", "test")] == [100, 30, 30]
    for x, y in task.samples.values():
        assert x.shape[1:] == (28, 28, 1) and x.dtype == y.dtype == np.float32
        assert x.min() >= 0 and 0.7 < x.max() <= 1
        assert np.all(y.sum(axis=1) == 1) and y.shape[1] == 10


def test_an_epoch_is_a_permutation_that_hangs_on_seed_and_number_alone(task):
    def batches(first_epoch=0, seed=5):
        data = task.training_data(recipe(), seed, first_epoch)
        return [np.array(x) for x, _ in data]

    whole, resumed = batches(), batches(1)
    assert task.steps_per_epoch(recipe()) == 6 and len(whole) == 18
    for one, other in zip(whole[6:], resumed, strict=True):
        np.testing.assert_array_equal(one, other)
    epoch = np.concatenate(whole[:6])
    assert len(np.unique(epoch.reshape(len(epoch), -1), axis=0)) == 96
    assert np.any(epoch != np.concatenate(whole[6:12]))
    assert np.any(np.concatenate(batches(seed=6)[:6]) != epoch)
    x, y = next(iter(task.training_data(recipe(), 5)))
    assert x.shape == (16, 28, 28, 1) and y.shape == (16, 10)


@pytest.mark.slow
def test_figure_is_the_accuracy_in_percent(task):
    model = recipes.network(recipe(), 0)
    model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    for split in ("valid", "test"):
        x, y = task.samples[split]
        right = model.predict(x, verbose=0).argmax(axis=1) == y.argmax(axis=1)
        assert task.evaluate(model, split) == pytest.approx(100 * right.mean(), abs=1e-4)
        assert task.evaluate(model, split, 7) == task.evaluate(model, split, 500)
    assert not task.lower_is_better


@pytest.mark.slow
def test_trains_and_publishes(task, tmp_path):
    import json

    (tmp_path / "content" / "tiny").mkdir(parents=True)
    entries = recipe(epochs=12).entries()
    (tmp_path / "content" / "tiny" / "recipe.json").write_text(json.dumps(entries))
    results = publish.train_and_publish(
        "tiny",
        tmp_path / "content",
        tmp_path / "runs",
        progress=lambda event: None,
        tasks={"mnist": task},
    )
    assert results["unit"] == "% correct" and results["test"]["mean"] > 40
    preset = json.loads((tmp_path / "content" / "tiny" / "preset.json").read_text())
    assert preset["network"] == "28x28x1 - SSNU 10"
    with np.load(tmp_path / "content" / "tiny" / "golden.npz") as golden:
        assert golden["input"].shape == (1, 28, 28, 1) and golden["output"].shape == (1, 10)


def test_drawn_digits_are_ten_different_soft_images(data_folder):
    digits = np.stack([draw(digit) for digit in range(10)])
    assert digits.shape == (10, 28, 28, 1) and digits.min() >= 0 and digits.max() <= 1
    assert len(np.unique(digits.reshape(10, -1), axis=0)) == 10
    assert isinstance(Digits().loss({}), keras.losses.MeanSquaredError)
    x, _ = Digits().samples["test"]
    assert 0.5 < digits.mean() / x.mean() < 2  # about as much ink as MNIST
