"""Spikes and operations, against counts by hand."""

import keras
import numpy as np
import pytest

import snukeras
from snukeras.zoo.publishing import costs


def network(*layers, shape=(None, 4)):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *layers])


def spikes(*shape, seed=0):
    return (np.random.default_rng(seed).random(shape) < 0.4).astype(np.float32)


def rows(counted):
    return {matrix["name"]: matrix for matrix in counted["matrices"]}


def test_spikes_and_additions():
    snu = snukeras.layers.SNU(6, return_sequences=True, threshold=0.1, recurrent=True, name="snu")
    model = network(snu, keras.layers.Dense(3, name="out"))
    x = spikes(5, 7, 4)
    mask = np.arange(7) < np.array([7, 3, 5, 1, 2])[:, None]
    counted = costs.counted(model, [(x[:2], mask[:2]), (x[2:], mask[2:])])

    y = np.asarray(snu(x))
    steps = mask.sum()
    additions = 6 * x[mask].sum() + 3 * y[mask].sum()
    for sample in range(5):
        for step in range(1, 7):
            if mask[sample, step]:
                additions += 6 * y[sample, step - 1].sum()
    assert y[mask].sum() > 0
    assert counted["samples"] == 5 and counted["steps_per_sample"] == pytest.approx(steps / 5)
    assert counted["spikes_per_sample"] == pytest.approx(y[mask].sum() / 5, abs=1e-3)
    assert counted["macs_per_step"] == 4 * 6 + 6 * 6 + 6 * 3
    assert counted["additions_per_step"] == round(additions / steps)
    assert counted["multiplications_per_step"] == 0
    assert counted["pcm_devices"] == 2 * (24 + 36 + 18)
    assert set(rows(counted)) == {"snu/kernel", "snu/recurrent_kernel", "out/kernel"}


def test_outputs_that_are_no_spikes_are_multiplied():
    model = network(snukeras.layers.SSNU(6, return_sequences=True), keras.layers.Dense(3))
    counted = costs.counted(model, [(spikes(2, 5, 4), None)])
    assert counted["spikes_per_sample"] is None
    assert counted["multiplications_per_step"] == 18
    assert 0 < counted["additions_per_step"] < 24


@pytest.mark.parametrize(("kind", "gates"), [("SimpleRNN", 1), ("LSTM", 4), ("GRU", 3)])
def test_gates(kind, gates):
    model = network(getattr(keras.layers, kind)(6, return_sequences=True, name="rnn"))
    counted = costs.counted(model, [(spikes(2, 5, 4), None)])
    assert counted["macs_per_step"] == gates * (24 + 36)
    # At the first of five steps there is no output yet.
    assert rows(counted)["rnn/recurrent_kernel"]["active_inputs"] == pytest.approx(0.8)


def test_without_time():
    model = network(keras.layers.Dense(5), keras.layers.Dense(2), shape=(4,))
    counted = costs.counted(model, [(np.ones((3, 4), np.float32), None)])
    assert counted["steps_per_sample"] == 1 and counted["macs_per_step"] == 4 * 5 + 5 * 2


def test_coded_images_and_feature_maps():
    model = network(
        snukeras.layers.RateCoding(5, seed=1),
        snukeras.layers.ConvSNU2D(
            3, 2, return_sequences=True, threshold=0.1, implementation="cell"
        ),
        keras.layers.TimeDistributed(keras.layers.Flatten()),
        snukeras.layers.SNU(2, return_sequences=True),
        keras.layers.GlobalAveragePooling1D(),
        shape=(4, 4, 1),
    )
    counted = costs.counted(model, [(np.full((2, 4, 4, 1), 0.5, np.float32), None)])
    assert counted["steps_per_sample"] == 5
    assert counted["macs_per_step"] == 9 * (2 * 2 * 1 * 3) + 27 * 2
    assert counted["multiplications_per_step"] == 0 and counted["additions_per_step"] > 0


def test_projection_of_a_tied_embedding_counts_and_the_lookup_does_not():
    words = keras.Input((None,), dtype="int32")
    embedding = snukeras.layers.TiedEmbedding(10, 4)
    unit = snukeras.layers.SNU(4, threshold=-1.0, return_sequences=True)  # all spike, always
    model = keras.Model(words, embedding(unit(embedding(words)), reverse=True))
    counts = costs.counted(model, [(np.array([[1, 2, 3], [4, 5, 6]]), None)])
    names = [matrix["name"] for matrix in counts["matrices"]]
    assert names == [f"{unit.name}/kernel", f"{embedding.name}/embeddings"]
    assert counts["macs_per_step"] == 4 * 4 + 4 * 10
    assert counts["additions_per_step"] == 40 and counts["multiplications_per_step"] == 16
    assert counts["pcm_devices"] == 2 * (16 + 40)
