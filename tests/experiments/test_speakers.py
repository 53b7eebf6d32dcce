"""Speakers held out: every fold and seed, means, what is resumed, and the search of settings."""

import json

import numpy as np
import pytest
from tiny_speech import Syllables, make_recipe

from experiments import speakers, speakers_search
from snukeras.zoo.tasks.speech import speak


class BandsOfSyllables(speakers.Bands, Syllables):
    """Frames of syllables that were made."""


@pytest.fixture
def content(tmp_path):
    (tmp_path / "tiny").mkdir()
    recipe = make_recipe(epochs=1, seeds=[0, 1])
    (tmp_path / "tiny" / "recipe.json").write_text(json.dumps(recipe.entries()))
    return tmp_path


def test_every_speaker_is_held_out_with_every_seed(content, tmp_path, monkeypatch):
    trained = []

    def train_seed(recipe, task, seed, folder, **arguments):
        assert (recipe.data, recipe.epochs) == (speakers.AUGMENTATION, speakers.EPOCHS)
        assert recipe.batch_size == speakers.BATCH
        trained.append((task.held_out, seed, folder))
        figure = 50.0 + 10 * seed + speakers.SPEAKERS.index(task.held_out)
        return {"seed": seed, "valid": figure, "test": figure - 1, "epoch": 1, "seconds": 1.0,
                "parameters": 7, "history": []}  # fmt: skip

    monkeypatch.setattr(speakers.training.spread, "train_seed", train_seed)
    results = speakers.experiment("tiny", tmp_path / "runs", content, root=tmp_path)
    assert [(speaker, seed) for speaker, seed, _ in trained] == [
        (speaker, seed) for speaker in speakers.SPEAKERS for seed in (0, 1)
    ]
    assert len({folder for _, _, folder in trained}) == 12
    path = tmp_path / "speakers" / "tiny.json"
    assert json.loads(path.read_text()) == results
    # Seeds 0 and 1 have 51.5 and 61.5 on average of the six.
    assert results["test"] == {"mean": 56.5, "deviation": pytest.approx(np.sqrt(50), abs=1e-4)}
    row = "| `tiny` | 7 | 56.5 ± 7.1 | 54.0 | 55.0 | 56.0 | 57.0 | 58.0 | 59.0 |"
    assert row in speakers.table(tmp_path)
    some = speakers.experiment("tiny", tmp_path / "runs", content, ["theo"], root=tmp_path)
    assert some["test"] is None and "tiny" not in speakers.table(tmp_path)


def test_trains_and_resumes(content, tmp_path, monkeypatch):
    monkeypatch.setattr(speakers, "BATCH", 8)
    asked = dict(speakers=["theo"], root=tmp_path, task=BandsOfSyllables, seeds=[3],
                 data={"gain": 3.0}, epochs=1, progress=lambda event: None)  # fmt: skip
    results = speakers.experiment("tiny", tmp_path / "runs", content, **asked)
    assert [(fold["speaker"], fold["seed"]) for fold in results["folds"]] == [("theo", 3)]
    assert results["recipe"]["data"] == {"gain": 3.0} and results["recipe"]["epochs"] == 1
    asked["progress"] = lambda event: pytest.fail("trained again")
    assert speakers.experiment("tiny", tmp_path / "runs", content, **asked) == results


def test_other_tasks_are_refused(content, tmp_path):
    path = content / "tiny" / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task": "mnist"}))
    with pytest.raises(ValueError, match=r"task spoken_digits\. Received: mnist"):
        speakers.experiment("tiny", tmp_path / "runs", content, root=tmp_path)


def test_bands_know_neither_level_nor_length_nor_a_gentle_filter():
    sound = np.zeros((1, 8000), "float32")
    sound[0, :4000] = speak(3)[:4000]
    found = speakers.bands(sound)
    assert found.shape == (1, 49, 40) and found.min() >= 0 and found.max() > 3
    assert speakers.bands(10 * sound) == pytest.approx(found, abs=1e-2)
    later = np.roll(sound, 5 * 160, axis=1)
    assert speakers.bands(later)[:, 5:] == pytest.approx(found[:, :-5], abs=0.05)
    # 12 dB more from the lowest to the highest frequency: the bands of raw sound change by 1.4.
    tilt = 10 ** (12 / 20 * np.linspace(0, 1, 4001))
    tilted = np.fft.irfft(np.fft.rfft(sound) * tilt).astype("float32")
    assert np.abs(speakers.bands(tilted) - found).mean() < 0.1
    assert not speakers.bands(np.zeros((1, 8000), "float32")).any()


def test_one_layer_of_units_stands_behind_the_convolutions(monkeypatch):
    seen = {}

    def trained(trainings, *_):
        seen.update({training.recipe.name: training.recipe for training in trainings})
        return (nothing for nothing in ())

    monkeypatch.setattr(speakers.training, "trained", trained)
    for name in ("speech_snu", "speech_ssnu", "speech_lstm"):
        speakers.experiment(name, speakers=["theo"], seeds=[0], task=BandsOfSyllables)
    for name, kind in (("speech_snu", "SNU"), ("speech_ssnu", "SSNU"), ("speech_lstm", "LSTM")):
        layers = seen[name].network["layers"]
        assert layers[: len(speakers.FRONT)] == [*speakers.FRONT]
        behind = layers[len(speakers.FRONT) :]
        assert [layer["class"] for layer in behind] == [
            "Dense", "BatchNormalization", kind, "Dropout",
            "GlobalAveragePooling1D", "BatchNormalization", "Dense",
        ]  # fmt: skip
        assert behind[2].get("recurrent", False) is False
        assert behind[2]["units"] == (128 if kind == "LSTM" else 256)


# The search: what is changed and kept, and that no test is measured.


def test_every_combination_is_kept_and_trained_once(content, tmp_path, monkeypatch):
    trained = []

    def train_seed(recipe, task, seed, folder, test, **arguments):
        units = next(part for part in recipe.network["layers"] if part.get("return_sequences"))
        rate = recipe.optimizer["learning_rate"]
        trained.append((task.held_out, units["threshold"], rate, seed, folder))
        assert not test and recipe.epochs == speakers.EPOCHS
        if units["threshold"] == 9.0:
            raise FloatingPointError("diverged")
        return {"valid": 50 + 10 * rate + len(task.held_out), "parameters": 7}

    monkeypatch.setattr(speakers_search.training.spread, "train_seed", train_seed)
    vary = {"units.threshold": [0.3, 9.0], "optimizer.learning_rate": [0.1, 0.2]}
    asked = dict(runs=tmp_path / "runs", root=tmp_path, content=content, held_out=("a", "bb"),
                 task=lambda who: type("Fold", (), {"held_out": who}))  # fmt: skip
    rows = speakers_search.experiment("tiny", vary, 3, **asked)
    assert rows == json.loads((tmp_path / "speakers_search" / "tiny.json").read_text())["runs"]
    assert [row["settings"] for row in rows] == [
        {"units.threshold": threshold, "optimizer.learning_rate": rate}
        for threshold in (0.3, 9.0)
        for rate in (0.1, 0.2)
    ]
    assert rows[1]["valid"] == {"a": 53.0, "bb": 54.0} and rows[1]["mean"] == 53.5
    assert rows[2]["valid"] is None and rows[2]["mean"] is None
    # Both folds of two settings, and of the others the first, which diverged.
    assert [run[:4] for run in trained] == [
        *[(who, 0.3, rate, 3) for rate in (0.1, 0.2) for who in ("a", "bb")],
        ("a", 9.0, 0.1, 3),
        ("a", 9.0, 0.2, 3),
    ]
    assert len({folder for *_, folder in trained}) == len(trained)
    del trained[:]
    speakers_search.experiment("tiny", {**vary, "units.threshold": [0.3]}, 3, **asked)
    assert not trained


def test_it_trains(content, tmp_path, monkeypatch):
    monkeypatch.setattr(speakers, "BATCH", 8)
    monkeypatch.setattr(speakers, "EPOCHS", 1)
    (row,) = speakers_search.experiment(
        "tiny", {}, runs=tmp_path / "runs", root=tmp_path, content=content, held_out=["theo"],
        task=BandsOfSyllables, progress=lambda event: None,
    )  # fmt: skip
    assert 0 <= row["valid"]["theo"] == row["mean"] <= 100 and row["parameters"] > 1000


def test_a_place_that_is_not_there_is_refused(content, tmp_path):
    with pytest.raises(ValueError, match=r"no such place. Received: 'optimizer\.speed\.x'"):
        speakers_search.experiment("tiny", {"optimizer.speed.x": [1]}, root=tmp_path,
                                   content=content)  # fmt: skip
    with pytest.raises(ValueError, match="has to name a list of values for each place"):
        speakers_search.experiment("tiny", {"units.threshold": 1.0}, root=tmp_path, content=content)
