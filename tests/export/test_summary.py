"""What `snukeras.summary` says, against the map, the cost model and counts by hand."""

import keras
import numpy as np
import pytest
from maps import mapped

import snukeras
from snukeras.export.network import Network
from snukeras.export.report.energy import energy
from snukeras.layers import SNU, SSNU, TiedEmbedding
from snukeras.zoo.publishing import costs


def network(*layers, shape=(None, 4)):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *layers], name="net")


def spikes(*shape):
    return (np.random.default_rng(0).random(shape) < 0.4).astype("float32")


@pytest.fixture(scope="module")
def model():
    return network(
        SNU(6, return_sequences=True, threshold=0.1, recurrent=True, name="snu"),
        SSNU(5, return_sequences=True, name="soft"),
        keras.layers.Dense(3, name="out"),
    )


@pytest.fixture(scope="module")
def found(model):
    return snukeras.summary(model, spikes(5, 7, 4), "pcm14nm-2")


def test_it_agrees_with_the_map_and_the_report(model, found, tmp_path):
    crossbar = mapped(tmp_path / "m", model, "pcm14nm-2")
    costs = energy(crossbar, Network.read(model).uses)
    total = found.total
    assert total.parameters == model.count_params() == sum(r.parameters for r in found.layers)
    assert total.devices == crossbar.totals["devices"] and total.tiles == crossbar.totals["tiles"]
    assert (total.low_nJ, total.high_nJ) == (costs.low_nJ, costs.high_nJ)
    for layer, cost in zip(found.layers, costs.layers, strict=True):
        assert (layer.name, layer.low_nJ, layer.high_nJ) == (cost.call, cost.low_nJ, cost.high_nJ)
    assert found.layers[0].matrices == ((4, 6), (6, 6)) and found.layers[0].tiles == 2
    assert found.layers[0].kind == "SNU"


def test_it_counts_as_the_zoo_does(model, found):
    x = spikes(5, 7, 4)
    counted = costs.counted(model, [(x, None)])
    snu, soft, out = found.layers
    assert found.samples == 5
    assert snu.spikes == pytest.approx(counted["spikes_per_sample"], abs=1e-3)
    assert snu.rate == pytest.approx(snu.spikes / (7 * 6)) and 0 < snu.rate < 1
    assert soft.spikes is None and out.spikes is None
    assert found.total.dense == 7 * counted["macs_per_step"]
    left = counted["additions_per_step"] + counted["multiplications_per_step"]
    assert found.total.operations == pytest.approx(7 * left, rel=0.01)
    assert out.operations == out.dense == 7 * 15


def test_it_reads_at_80_columns(found):
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    for word in ("snu", "SNU", "4x6 6x6", "parameters", "energy a step", "spikes", "zeros skipped"):
        assert word in text
    assert "total" in text and repr(found) == text


def test_a_notebook_shows_it_with_names_escaped():
    model = network(keras.layers.Dense(3, name="<b>x"))
    html = snukeras.summary(model)._repr_html_()
    assert "&lt;b&gt;x" in html and "<b>x" not in html
    assert html.count("<table>") == html.count("</table>") == 1


def test_models_inside_models_and_both_directions():
    keras.utils.set_random_seed(1)  # units of which some spike, and not all
    inner = network(keras.layers.Bidirectional(SNU(3, return_sequences=True, threshold=0.1)))
    x = keras.Input((5, 4))
    y = keras.layers.TimeDistributed(keras.layers.Dense(2, name="dense"), name="each")(inner(x))
    model = keras.Model(x, y)
    found = snukeras.summary(model, spikes(2, 5, 4))
    assert found.total.parameters == model.count_params()
    assert found.total.dense == 5 * (2 * 4 * 3 + 6 * 2)
    forward, backward, each = found.layers
    assert "net/" in forward.name and forward.spikes > 0 and backward.spikes > 0
    assert each.kind == "Dense" and each.operations < each.dense
    ran = snukeras.trace(model, spikes(2, 5, 4))
    assert found.total.spikes == sum(v["spikes"].sum() for v in ran.values()) / 2


def test_masked_steps_do_not_count():
    model = network(keras.layers.Masking(), SNU(3, return_sequences=True, threshold=-1.0))
    x = np.ones((2, 6, 4), "float32")
    x[:, 3:] = 0.0
    (layer,) = snukeras.summary(model, x).layers
    (ran,) = snukeras.trace(model, x[:, :3]).values()
    assert layer.spikes == ran["spikes"].sum() / 2 > 0
    assert layer.rate == ran["spikes"].mean() and layer.operations == 3 * 12


def test_a_tied_table_is_read_and_projects():
    words = keras.Input((None,), dtype="int32")
    table = TiedEmbedding(10, 4, name="table")
    model = keras.Model(words, table(SNU(4, return_sequences=True)(table(words)), reverse=True))
    found = snukeras.summary(model, np.array([[1, 2, 3], [4, 5, 6]]))
    assert found.total.dense == 3 * (16 + 40)


@keras.saving.register_keras_serializable(package="tests")
class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.unit = SNU(3, threshold=0.1, name="unit")

    def call(self, given):
        return self.unit(given["x"])


def test_of_a_subclassed_model_it_says_what_is_known():
    model, x = Own(), {"x": spikes(2, 5, 4)}
    with pytest.raises(ValueError, match="must be a built Keras model"):
        snukeras.summary(model)
    model(x)
    found = snukeras.summary(model, x)
    (unit,) = found.layers
    assert unit.devices == 24 and unit.spikes > 0
    assert unit.low_nJ is None and unit.operations is None
    assert "no topology" in found.notes[0] and "-" in str(found)


def test_an_analog_network_is_summarised_as_its_plain_one():
    model = network(SNU(3, return_sequences=True), keras.layers.Dense(2))
    analog = snukeras.pcm.analog(model, snukeras.pcm.Tile(rows=8, columns=8))
    assert snukeras.summary(analog).total == snukeras.summary(model).total


def test_an_unknown_target_is_named():
    with pytest.raises(ValueError, match="Unknown target 'nowhere'"):
        snukeras.summary(network(keras.layers.Dense(2)), target="nowhere")
