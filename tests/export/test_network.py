"""What the exporter reads of a network: how often a step uses each matrix."""

import keras
import pytest

from snukeras.export.network import Network
from snukeras.layers import SNU, ConvSNU2D, RateCoding, TiedEmbedding

LAYERS = keras.layers


def uses(model, embedding=False):
    found: dict[str, float] = {}
    for use in Network.read(model, embedding).uses:
        found[use.matrix] = found.get(use.matrix, 0.0) + use.per_step
    return found


@pytest.mark.parametrize("steps", [None, 12])
def test_recurrent_layers_use_their_matrices_once_a_step(steps):
    inputs = keras.Input((steps, 5))
    x = SNU(4, recurrent=True, return_sequences=True, name="snu")(inputs)
    x = LAYERS.LSTM(3, return_sequences=True, name="lstm")(x)
    both = LAYERS.Bidirectional(LAYERS.GRU(2, return_sequences=True, name="g"), name="both")(x)
    model = keras.Model(inputs, LAYERS.Dense(6, name="out")(both))
    found = uses(model)
    assert set(found.values()) == {1.0} and len(found) == 9


def test_a_convolution_counts_its_output_positions():
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            LAYERS.Conv2D(4, 5, strides=2, name="conv"),
            LAYERS.Flatten(),
            LAYERS.Dense(3, name="out"),
        ]
    )
    assert uses(model) == {"conv/kernel": 144.0, "out/kernel": 1.0}


def test_convolutional_units_count_their_places_at_each_step():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            RateCoding(10, inference="fixed"),
            ConvSNU2D(4, 3, recurrent=True, padding="same", return_sequences=True, name="a"),
            LAYERS.TimeDistributed(LAYERS.Conv2D(2, 3, name="inner"), name="b"),
            LAYERS.TimeDistributed(LAYERS.Flatten()),
            SNU(5, name="c"),
            LAYERS.Dense(2, name="after"),
        ]
    )
    assert uses(model) == {
        "a/kernel": 64.0,
        "a/recurrent_kernel": 64.0,
        "b/kernel": 36.0,
        "c/kernel": 1.0,
        "after/kernel": 0.1,
    }


def test_a_shared_matrix_counts_for_each_call():
    inputs = keras.Input((None, 4))
    shared = LAYERS.Dense(4, name="shared")
    model = keras.Model(inputs, SNU(3, return_sequences=True)(shared(shared(inputs))))
    assert uses(model)["shared/kernel"] == 2.0


def test_a_tied_table_counts_where_it_projects():
    words = keras.Input((None,), dtype="int32")
    table = TiedEmbedding(20, 4, name="table")
    x = SNU(4, return_sequences=True, name="snu")(table(words))
    model = keras.Model(words, table(x, reverse=True))
    assert uses(model) == {"table/embeddings": 1.0, "snu/kernel": 1.0}


def test_models_inside_count_for_each_step():
    inner = keras.Sequential([keras.Input((6, 6, 1)), LAYERS.Conv2D(2, 3, name="k")], name="inner")
    inputs = keras.Input((None, 6, 6, 1))
    x = LAYERS.TimeDistributed(inner, name="each")(inputs)
    x = LAYERS.TimeDistributed(LAYERS.Flatten())(x)
    found = uses(keras.Model(inputs, SNU(2, return_sequences=True, name="snu")(x)))
    assert sorted(found.values()) == [1.0, 16.0]


def test_a_depthwise_convolution_drives_one_channel_after_the_other():
    model = keras.Sequential([keras.Input((5, 5, 3)), LAYERS.DepthwiseConv2D(3, name="d")])
    assert uses(model) == {"d/kernel": 27.0}
