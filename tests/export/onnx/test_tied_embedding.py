"""The tied embedding as ONNX and as a matrix of the crossbar map."""

import json

import keras
import numpy as np
import pytest
from networks import difference

from snukeras.export import export
from snukeras.layers import SSNU, TiedEmbedding
from snukeras.network.weights import collect


def language_model(use_bias=True, batch=None):
    keras.utils.set_random_seed(4)
    words = keras.Input((None,), batch_size=batch, dtype="int32", name="words")
    embedding = TiedEmbedding(
        300, 6, use_bias=use_bias, bias_initializer="normal", name="embedding"
    )
    x = SSNU(6, recurrent=True, return_sequences=True, name="ssnu")(embedding(words))
    return keras.Model(words, embedding(x, reverse=True), name="words")


@pytest.mark.parametrize("use_bias", [True, False])
def test_onnx_holds_the_table_once(use_bias):
    model = language_model(use_bias)
    words = np.random.default_rng(0).integers(300, size=(3, 7), dtype=np.int32)
    worst, proto = difference(model, words)
    assert worst < 1e-5
    assert sum(tuple(t.dims) == (300, 6) for t in proto.graph.initializer) == 1
    assert sum(tuple(t.dims) == (6, 300) for t in proto.graph.initializer) == 0


def test_two_tables_are_two():
    first, second = TiedEmbedding(20, 5, name="a"), TiedEmbedding(20, 5, name="b")
    words = keras.Input((None,), dtype="int32")
    model = keras.Model(words, first(second(words), reverse=True))
    worst, proto = difference(model, np.array([[3, 19, 0]], np.int32))
    assert worst < 1e-6
    assert sum(tuple(t.dims) == (20, 5) for t in proto.graph.initializer) == 2


def test_table_is_a_matrix_once():
    weights = {weight.name: weight for weight in collect(language_model())}
    table = weights["embedding/embeddings"]
    assert table.matrix and table.values.shape == (300, 6)
    assert not weights["embedding/bias"].matrix
    assert sum(weight.values.shape == (300, 6) for weight in weights.values()) == 1


@pytest.mark.slow
def test_export_to_pcm_with_streaming_form(tmp_path):
    report = export(language_model(), tmp_path / "out", target="pcm", streaming=True)
    assert report["verification"]["ok"]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["verification"]["ok"]
