"""Every variable of a model is collected once, as matrix or as parameter."""

import keras

from snukeras.layers import SNU
from snukeras.network.weights import collect, digest


def test_weights_cover_every_variable_once():
    inputs = keras.Input((None, 6))
    unit = SNU(4, return_sequences=True, recurrent=True, name="unit")
    x = keras.layers.Bidirectional(unit, name="both")(inputs)
    x = keras.layers.TimeDistributed(keras.layers.Dense(4), name="td")(x)
    x = keras.layers.LSTM(3, return_sequences=True)(keras.layers.BatchNormalization()(x))
    x = keras.layers.RNN(keras.layers.StackedRNNCells([keras.layers.GRUCell(2, name="g")]))(x)
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="d")], name="inner")
    model = keras.Model(inputs, inner(inner(x)))
    weights = collect(model)
    variables = [id(w.variable) for w in weights if w.variable is not None]
    assert sorted(variables) == sorted(id(v) for v in model.weights)
    matrices = [w.name for w in weights if w.matrix]
    assert {"both/backward_unit/recurrent_kernel", "td/kernel", "inner/d/kernel"} <= set(matrices)
    assert len(matrices) == 10
    assert len(digest(weights)) == 64


def test_conv_and_embedding_matrices():
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 4, name="e")(inputs)
    model = keras.Model(inputs, keras.layers.Conv1D(5, 3, name="c")(x))
    assert [w.name for w in collect(model) if w.matrix] == ["c/kernel"]
    assert [w.name for w in collect(model, embedding=True) if w.matrix] == [
        "e/embeddings",
        "c/kernel",
    ]
