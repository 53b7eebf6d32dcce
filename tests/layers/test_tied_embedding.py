"""TiedEmbedding: one table, looked up and projected onto."""

import keras
import numpy as np
import pytest

from snukeras.layers import SSNU, TiedEmbedding


def model(**arguments):
    keras.utils.set_random_seed(1)
    words = keras.Input((None,), dtype="int32")
    embedding = TiedEmbedding(11, 4, bias_initializer="normal", **arguments)
    x = SSNU(4, recurrent=True, return_sequences=True)(embedding(words))
    return keras.Model(words, embedding(x, reverse=True))


def test_values():
    layer = TiedEmbedding(5, 3, bias_initializer="normal")
    words = np.array([[4, 0], [2, 2]])
    vectors = keras.ops.convert_to_numpy(layer(words))
    table, bias = layer.get_weights()
    np.testing.assert_array_equal(vectors, table[words])
    x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    logits = keras.ops.convert_to_numpy(layer(x, reverse=True))
    np.testing.assert_allclose(logits, x @ table.T + bias, rtol=1e-5, atol=1e-6)


def test_one_table_gets_both_gradients():
    import tensorflow as tf

    layer = TiedEmbedding(5, 3, use_bias=False)
    words, wanted = np.array([[1, 2]]), np.array([[2, 0]])
    layer(words)
    table = layer.get_weights()[0].astype(np.float64)

    def loss(table):
        logits = table[words[0]] @ table.T
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        return -logits[[0, 1], wanted[0]].sum()

    with tf.GradientTape() as tape:
        logits = layer(layer(words), reverse=True)
        total = tf.reduce_sum(
            keras.losses.sparse_categorical_crossentropy(wanted, logits, from_logits=True)
        )
    gradient = tf.convert_to_tensor(tape.gradient(total, layer.embeddings.value)).numpy()
    for at in np.ndindex(*table.shape):
        step = np.zeros_like(table)
        step[at] = 1e-5
        slope = (loss(table + step) - loss(table - step)) / 2e-5
        np.testing.assert_allclose(gradient[at], slope, atol=1e-4)


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("use_bias", [True, False])
def test_tie_survives_saving_and_cloning(tmp_path, use_bias):
    made = model(use_bias=use_bias)
    words = np.array([[3, 10, 0]])
    expected = made.predict(words, verbose=0)
    made.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    from_json = keras.models.model_from_json(made.to_json())
    from_json.set_weights(made.get_weights())
    clone = keras.models.clone_model(made)
    clone.set_weights(made.get_weights())
    for again in (loaded, from_json, clone):
        np.testing.assert_allclose(again.predict(words, verbose=0), expected, atol=1e-6)
        assert again.count_params() == made.count_params() == 11 * 4 + 4 * 8 + 4 + 11 * use_bias
        tables = [v for v in again.trainable_variables if tuple(v.shape) == (11, 4)]
        assert len(tables) == 1
        tables[0].assign(np.zeros((11, 4)))
        assert np.ptp(again.predict(words, verbose=0), axis=1).max() == 0


def test_config():
    layer = TiedEmbedding(
        7,
        2,
        use_bias=False,
        embeddings_initializer="ones",
        embeddings_regularizer=keras.regularizers.L2(0.1),
        embeddings_constraint="non_neg",
        name="words",
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    again(np.array([1]))
    assert len(again.losses) == 1 and isinstance(
        again.embeddings.constraint, keras.constraints.NonNeg
    )


def test_words_stay_whole_in_half_precision():
    layer = TiedEmbedding(10_000, 2, dtype="mixed_bfloat16")
    words = np.array([9_999, 257])
    vectors = layer(words)
    assert vectors.dtype == "bfloat16"
    np.testing.assert_allclose(
        np.asarray(keras.ops.cast(vectors, "float32")), layer.get_weights()[0][words], rtol=1e-2
    )


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`output_dim` must be an integer of at least 1\. .*=0"):
        TiedEmbedding(5, 0)
    layer = TiedEmbedding(5, 3)
    with pytest.raises(ValueError, match=r"vectors of its own width, 3. Received: width 4"):
        layer(np.zeros((1, 2, 4), np.float32), reverse=True)
