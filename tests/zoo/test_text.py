"""Text tasks: contiguous batches, carried states, the sampled softmax, the figure."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras import layers
from snukeras.zoo import presets, recipes, training
from snukeras.zoo.publishing import publish
from snukeras.zoo.tasks import Words
from snukeras.zoo.tasks.sampled_softmax import candidates, sampled_nll

VOCABULARY = ["the", "<eos>", "a", "cat", "dog", "sat", "ran", "on", "mat", "log", "and", "saw"]


def load():
    """Each word mostly decides the next one."""
    random = np.random.default_rng(3)

    def text(size):
        words = [0]
        for other in random.integers(len(VOCABULARY), size=size):
            words.append((5 * words[-1] + 1) % len(VOCABULARY) if random.random() < 0.7 else other)
        return np.array(words[1:], np.int32)

    return tuple(text(size) for size in (2000, 601, 530)), VOCABULARY


def make_task():
    return Words("pets", "Pets", load, "0" * 64, "none needed")


def make_recipe(**changes):
    return {
        "format": 1,
        "name": "tiny_words",
        "title": "A tiny language model",
        "description": "For the tests.",
        "licence": "Apache-2.0",
        "task": "pets",
        "network": {
            "input": "words",
            "input_shape": [None],
            "input_dtype": "int32",
            "layers": [
                {"class": "TiedEmbedding", "name": "embedding", "input_dim": 12, "output_dim": 5},
                {"class": "SSNU", "units": 6, "recurrent": True, "return_sequences": True},
                {"class": "Dropout", "rate": 0.2},
                {"class": "LSTM", "units": 5, "return_sequences": True},
                {"layer": "embedding", "reverse": True},
            ],
        },
        "data": {"steps": 7},
        "optimizer": {"class": "AdamW", "learning_rate": 0.01, "clipnorm": 1.0},
        "epochs": 3,
        "batch_size": 4,
        "seeds": [0],
        **changes,
    }


def network(**changes):
    keras.utils.set_random_seed(2)
    return recipes.network(recipes.check(make_recipe(**changes)), 0)


def batches(epochs=3, first_epoch=0, seed=5, **data):
    recipe = recipes.check(make_recipe(epochs=epochs, data={"steps": 7, **data}))
    dataset = make_task().training_data(recipe, seed, first_epoch)
    return [tf.nest.map_structure(lambda x: x.numpy(), batch) for batch in dataset]


def test_rows_go_on_from_batch_to_batch():
    task = make_task()
    steps = task.steps_per_epoch(recipes.check(make_recipe()))
    made = batches()
    assert len(made) == 3 * steps and steps == 1999 // 28
    text, starts = task.texts["train"], []
    for epoch in range(3):
        part = made[epoch * steps : (epoch + 1) * steps]
        assert [float(first[0]) for (_, first, *_), _ in part] == [1.0] + [0.0] * (steps - 1)
        x = np.concatenate([x for (x, *_), _ in part], axis=1)
        y = np.concatenate([y for _, y in part], axis=1)
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])  # the next word is the target
        np.testing.assert_array_equal(x[1:, 0], y[:-1, -1])  # a row goes on where one ended
        whole = np.append(x.ravel(), y[-1, -1])
        found = [s for s in range(2000 - 28 * steps) if (text[s : s + len(whole)] == whole).all()]
        assert len(found) == 1
        starts += found
    assert len(set(starts)) > 1


def test_batches_depend_on_seed_and_epoch_alone():
    whole, resumed = batches(candidates=6), batches(first_epoch=2, candidates=6)
    for one, other in zip(whole[-len(resumed) :], resumed, strict=True):
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(resumed) * 3 == len(whole)
    assert (batches(seed=6)[0][1] != whole[0][1]).any()


def test_last_epochs_are_exact():
    sizes = [len(drawn) for (_, _, drawn, _), _ in batches(candidates=6, exact_epochs=1)]
    assert sizes == [6] * (2 * len(sizes) // 3) + [12] * (len(sizes) // 3)
    assert {len(drawn) for (_, _, drawn, _), _ in batches()} == {12}


def test_chances_of_candidates():
    counts = np.array([500, 80, 30, 10, 10, 5, 5, 2, 1, 0])
    random = np.random.default_rng(1)
    times = np.zeros(10)
    for _ in range(4000):
        drawn, log_chances = candidates(counts, 5, random)
        assert len(set(drawn)) == 5 and (np.diff(drawn) > 0).all()
        times[drawn] += 1
    chances = np.full(10, np.nan)
    for _ in range(200):
        drawn, log_chances = candidates(counts, 5, random)
        chances[drawn] = np.exp(log_chances)
    assert np.nanmax(chances) <= 1 + 1e-6 and abs(chances.sum() - 5) < 1e-5
    np.testing.assert_allclose(times / 4000, chances, atol=0.03)
    # Where none is certain, chances are as the counts to the power of 3/4.
    rest = chances < 1
    share = np.maximum(counts, 1)[rest] ** 0.75
    np.testing.assert_allclose(chances[rest] / chances[rest].sum(), share / share.sum(), rtol=1e-5)
    drawn, log_chances = candidates(counts, 99, random)
    assert drawn.tolist() == list(range(10)) and (log_chances == 0).all()


def exact_nll(features, table, bias, words):
    logits = (features.astype(np.float64) @ table.T + bias).reshape(-1, len(table))
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return -logits[np.arange(len(logits)), words.ravel()]


@pytest.fixture(scope="module")
def projection():
    random = np.random.default_rng(7)
    return (
        random.normal(size=(2, 3, 4)).astype(np.float32),
        random.normal(size=(12, 4)).astype(np.float32),
        random.normal(size=12).astype(np.float32),
        random.integers(12, size=(2, 3)),
    )


def test_whole_vocabulary_is_exact_with_its_gradient(projection):
    features, table, bias, words = projection
    everything = np.arange(12, dtype=np.int32), np.zeros(12, np.float32)
    np.testing.assert_allclose(
        sampled_nll(features, table, bias, words, *everything),
        exact_nll(features, table, bias, words),
        rtol=1e-4,
        atol=1e-5,
    )
    gradients = []
    for exact in (False, True):
        variables = [tf.Variable(v) for v in (features, table, bias)]
        with tf.GradientTape() as tape:
            if exact:
                logits = tf.matmul(variables[0], variables[1], transpose_b=True) + variables[2]
                loss = keras.losses.sparse_categorical_crossentropy(words, logits, True)
            else:
                loss = sampled_nll(*variables, words, *everything)
            total = tf.reduce_sum(loss)
        gradients.append(tape.gradient(total, variables))
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    half = sampled_nll(features, table, None, words, *everything, "bfloat16")
    np.testing.assert_allclose(half, exact_nll(features, table, 0.0, words), atol=0.1)


@pytest.mark.slow
def test_partition_function_is_estimated_without_bias(projection):
    features, table, bias, words = projection
    counts = np.array([90, 50, 20, 20, 10, 9, 8, 5, 4, 3, 2, 1])
    random = np.random.default_rng(0)
    right = (features.reshape(-1, 4) * table[words.ravel()]).sum(-1) + bias[words.ravel()]
    sums = np.zeros(6)
    for _ in range(400):
        nll = sampled_nll(features, table, bias, words, *candidates(counts, 6, random))
        sums += np.exp(nll.numpy() + right)  # the estimated partition function
    exact = np.exp(exact_nll(features, table, bias, words) + right)
    np.testing.assert_allclose(sums / 400, exact, rtol=0.1)


def stateful_twin(model, rows):
    """The same network by Keras's own means: stateful layers of a fixed batch size."""
    words = keras.Input((None,), batch_size=rows, dtype="int32")
    embedding, *between = [
        type(layer).from_config(
            {**layer.get_config(), "stateful": True}
            if isinstance(layer, keras.layers.RNN)
            else layer.get_config()
        )
        for layer in model.layers[1:]
    ]
    x = embedding(words)
    for layer in between:
        x = layer(x)
    twin = keras.Model(words, embedding(x, reverse=True))
    for mine, theirs in zip(twin.trainable_variables, model.trainable_variables, strict=True):
        mine.assign(theirs)
    return twin


@pytest.mark.slow
def test_figure_counts_every_word_once_from_all_before_it():
    task, model = make_task(), network()
    text = task.texts["test"]
    twin = stateful_twin(model, 1)
    given = np.append([VOCABULARY.index("<eos>")], text[:-1])
    logits = []
    for piece in np.array_split(given, 5):
        logits.append(keras.ops.convert_to_numpy(twin(piece[None]))[0])
    logits = np.concatenate(logits).astype(np.float64)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.exp(-logits[np.arange(len(text)), text].mean())
    np.testing.assert_allclose(task.evaluate(model, "test"), expected, rtol=1e-5)
    np.testing.assert_allclose(task.evaluate(model, "test"), expected, rtol=1e-5)


def test_trainer_carries_states_within_an_epoch_and_drops_them_after():
    task, model = make_task(), network()
    recipe = recipes.check(make_recipe())
    trainer = task.trainer(model, recipe)
    assert {id(v) for v in trainer.trainable_variables} == {
        id(v) for v in model.trainable_variables
    }
    twin = stateful_twin(model, 4)
    made = batches(epochs=2)
    for x, _ in [*made[:3], made[len(made) // 2]]:
        if x[1][0]:
            for layer in twin.layers:
                if isinstance(layer, keras.layers.RNN):
                    layer.reset_state()
        features = trainer(x, training=False)
        logits = model.get_layer("embedding")(features, reverse=True)
        np.testing.assert_allclose(logits, twin(x[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_training_learns_resumes_and_publishes_in_half_precision(tmp_path):
    import json

    def write(folder, **changes):
        (folder / "tiny_words").mkdir(parents=True)
        recipe = make_recipe(half_precision=True, **changes)
        del recipe["network"]["layers"][3]  # the LSTM takes long to compile
        recipe["network"]["layers"][1]["units"] = 5
        (folder / "tiny_words" / "recipe.json").write_text(json.dumps(recipe))
        return folder

    content = write(tmp_path / "content", data={"steps": 7, "candidates": 8, "exact_epochs": 1})
    arguments = {"tasks": {"pets": make_task()}}
    seen = []

    def interrupt(event):
        seen.append(event["valid"])
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train("tiny_words", content, tmp_path / "a", progress=interrupt, **arguments)
    resumed = training.train(
        "tiny_words", content, tmp_path / "a", progress=seen.append, **arguments
    )
    whole = publish.train_and_publish(
        "tiny_words", content, tmp_path / "b", progress=lambda e: None, **arguments
    )
    assert resumed["test"]["mean"] == pytest.approx(whole["test"]["mean"], rel=1e-6)
    assert seen[0] > 1.1 * whole["valid"]["mean"]  # it has learned
    info = presets.info("tiny_words", content)
    assert info["network"] == "words - TiedEmbedding 5 - recurrent SSNU 5 - tied 12"
    assert presets.verify("tiny_words", content) < 1e-5
    for split, (measured, shipped) in publish.evaluate("tiny_words", content, **arguments).items():
        assert measured == pytest.approx(shipped, rel=1e-6), split
    model = presets.load("tiny_words", content=content)
    for weight in model.get_weights():
        np.testing.assert_array_equal(weight, weight.astype(np.float16))
    h5py = pytest.importorskip("h5py")
    kinds = set()
    with h5py.File(content / "tiny_words" / presets.WEIGHTS) as file:
        file.visititems(lambda _, x: kinds.add(x.dtype) if hasattr(x, "dtype") else None)
    assert np.dtype(np.float32) not in kinds and np.dtype(np.float16) in kinds
    assert "float16" in (content / "tiny_words" / "README.md").read_text()


def test_network_that_is_no_chain_from_table_to_table():
    model = keras.Sequential(
        [keras.Input((None,)), keras.layers.Embedding(12, 3), layers.SNU(3), keras.layers.Dense(12)]
    )
    with pytest.raises(ValueError, match=r"begin with a TiedEmbedding.*Embedding, SNU, Dense"):
        make_task().evaluate(model, "test")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"seps": 3}, "`data` of the task pets may hold steps.*Received: seps"),
        ({"precision": "int8"}, "`precision` must be"),
        ({"steps": 900}, "shorter than one batch"),
    ],
)
def test_bad_data_entries(data, message):
    with pytest.raises(ValueError, match=message):
        make_task().steps_per_epoch(recipes.check(make_recipe(data=data)))


def test_recipe_that_calls_a_layer_that_is_not_there():
    recipe = make_recipe()
    recipe["network"]["layers"][-1] = {"layer": "embeding", "reverse": True}
    with pytest.raises(ValueError, match=r"'embeding'. There are: embedding, ssnu, dropout, lstm"):
        recipes.network(recipes.check(recipe), 0)
