"""Spatial networks: costs and gradients against NumPy, split, and layers of all kinds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras import layers, regularizers
from snukeras.layers import SNU, SSNU, ConvSNU2D, Spatial


def slow_costs(model, power):
    """Both costs in plain loops over all pairs of neurons."""
    positions = {name: p.astype("float64") for name, p in model.positions.items()}

    def distance(a, b):
        return np.sqrt(np.sum((a - b) ** 2) + 1e-8)

    near = []
    for p in positions.values():
        near.append(np.mean([[np.exp(-distance(a, b)) for a in p] for b in p]))
    far = []
    for connection in model.connections:
        layer = model.network.get_layer(connection.target)
        layer = getattr(layer, "cell", layer)
        kernel = np.asarray(layer.recurrent_kernel if connection.recurrent else layer.kernel)
        source, target = positions[connection.source], positions[connection.target]
        rows = kernel.reshape(-1, kernel.shape[-1])
        costs = [
            abs(rows[i, j]) ** power * distance(source[i % len(source)], target[j % len(target)])
            for i in range(rows.shape[0])
            for j in range(rows.shape[1])
        ]
        far.append(np.mean(costs))
    return np.mean(near), np.mean(far)


def dense():
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(6, "sigmoid"), keras.layers.Dense(4)]
    )


def spiking():
    return keras.Sequential(
        [
            keras.Input((7, 5)),
            SNU(6, return_sequences=True),
            SSNU(3, recurrent=True, return_sequences=True),
            keras.layers.LSTM(2),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(4),
        ]
    )


def convolutional():
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(3, 2)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def conv_spiking():
    return keras.Sequential(
        [keras.Input((3, 6, 6, 1)), ConvSNU2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(4)]
    )


NETWORKS = {"dense": dense, "snu": spiking, "conv": convolutional, "conv_snu": conv_spiking}


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_those_of_slow_loops(name, power):
    model = Spatial(NETWORKS[name](), power=power, seed=1)
    near, far = slow_costs(model, power)
    np.testing.assert_allclose(model.proximity_cost(), near, rtol=1e-5)
    np.testing.assert_allclose(model.transport_cost(), far, rtol=1e-5)


def test_connections_are_found_through_layers_without_kernels():
    model = Spatial(spiking())
    names = [c.source[:4] + c.target[:4] + "H" * c.recurrent for c in model.connections]
    names = ["".join(filter(lambda x: not x.isdigit() and x != "_", n)) for n in names]
    assert names == ["snussnu", "ssnussnuH", "ssnulstm", "lstmlstmH", "lstmdens"]


@pytest.mark.parametrize("power", [1, 2])
def test_gradients_are_finite_differences(power):
    random = np.random.default_rng(0)
    kernel, p, q = (random.normal(size=s) for s in ((2, 3, 4), (4, 2), (3, 2)))
    q[0] = p[1]  # two neurons at one place

    def cost(kernel, p, q):
        return regularizers.proximity(p) + regularizers.transport(kernel, p, q, power)

    tensors = [tf.Variable(value) for value in (kernel, p, q)]
    with tf.GradientTape() as tape:
        value = cost(*tensors)
    for index, gradient in enumerate(tape.gradient(value, tensors)):
        for _ in range(6):
            direction = random.normal(size=gradient.shape)
            if index:  # the distance bends sharply where two neurons meet
                direction[1 if index == 1 else 0] = 0
            moved = [
                float(cost(*(t + (s * direction if i == index else 0)
                             for i, t in enumerate((kernel, p, q)))))
                for s in (1e-6, -1e-6)
            ]  # fmt: skip
            wanted = (moved[0] - moved[1]) / 2e-6
            np.testing.assert_allclose(np.sum(gradient * direction), wanted, atol=1e-7)
        assert np.isfinite(gradient).all()


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("name", ["dense", "snu", "conv"])
def test_each_cost_has_gradients_and_falls(name):
    model = Spatial(NETWORKS[name](), seed=1)
    optimizer = keras.optimizers.Adam(0.02)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(of):
        with tf.GradientTape() as tape:
            cost = of()
        variables = model.trainable_variables
        gradients = tape.gradient(cost, variables)
        optimizer.apply_gradients(
            [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        )
        return cost

    for of in (model.proximity_cost, model.transport_cost):
        positions = model.positions
        weights = [np.asarray(model._kernel(c)) for c in model.connections]
        costs = [float(step(of)) for _ in range(8)]
        assert (np.diff(costs) < 0).all()
        for layer, old in positions.items():
            moved = np.isin(layer, [c.target for c in model.connections])
            assert (model.positions[layer] != old).all() or not moved
        changed = [(np.asarray(model._kernel(c)) != w).mean() for c, w in zip(
            model.connections, weights, strict=True)]  # fmt: skip
        assert min(changed) > 0.9 if of == model.transport_cost else max(changed) == 0.0


def test_fit_minds_both_costs():
    x, y = np.ones((4, 5), "float32"), np.ones((4, 4), "float32")
    model = Spatial(dense(), proximity=0.5, transport=2.0)
    model.compile("sgd", "mse", jit_compile=False)
    near, far = float(model.proximity_cost()), float(model.transport_cost())
    mse = float(np.mean((np.asarray(model.network(x)) - y) ** 2))
    loss = model.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(loss, mse + 0.5 * near + 2.0 * far, rtol=1e-5)
    before = model.positions
    model.fit(x, y, verbose=0)
    for name, old in before.items():
        assert (model.positions[name] != old).any()


def test_without_costs_it_is_the_network_alone():
    model = Spatial(dense(), proximity=0.0, transport=0.0)
    model.compile("sgd", "mse", jit_compile=False)
    x, y = np.ones((4, 5), "float32"), np.ones((4, 4), "float32")
    model.fit(x, y, verbose=0)
    assert model.losses == []
    np.testing.assert_array_equal(model(x), model.network(x))


@pytest.mark.slow
def test_it_is_saved_with_its_positions_and_goes_on(tmp_path):
    x, y = np.ones((4, 5), "float32"), np.ones((4, 4), "float32")
    model = Spatial(dense(), 0.5, 2.0, 1, 3)
    model.compile("adam", "mse", jit_compile=False)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    own, old = ({**m.get_config(), "network": None} for m in (loaded, model))
    assert own == old and loaded.power == 1 and loaded.dimensions == 3
    for m in (model, loaded):
        m.fit(x, y, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.positions.keys() == model.positions.keys()


def test_the_split_follows_the_strongest_connections_and_parts_are_silent_elsewhere():
    network = dense()
    first, second = network.layers
    first.set_weights([np.ones((5, 6), "float32"), np.zeros(6, "float32")])
    out = np.zeros((6, 4), "float32")
    out[:3, :2], out[3:, 2:] = 1.0, -1.0
    out[0, 3] = 1.5  # weaker than its two connections to task 0 together
    second.set_weights([out, np.zeros(4, "float32")])
    model = Spatial(network)
    tasks = model.split([0, 0, 1, 1])
    assert tasks[first.name].tolist() == [0, 0, 0, 1, 1, 1]
    x = np.ones((1, 5), "float32")
    np.testing.assert_allclose(model.part(tasks, 0)(x)[0, :2], network(x)[0, :2])
    hidden = 1 / (1 + np.exp(-5.0))
    np.testing.assert_allclose(model.part(tasks, 1)(x)[0, 2:], [-3 * hidden] * 2, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(second.kernel), out)  # the network itself stays


@pytest.mark.parametrize("name", ["snu", "conv", "conv_snu"])
def test_layers_of_all_kinds_split(name):
    model = Spatial(NETWORKS[name]())
    tasks = model.split([0, 1, 0, 1])
    assert [len(t) for t in tasks.values()] == [len(p) for p in model.positions.values()]
    part = model.part(tasks, 1)
    x = np.ones((2, *model.network.input_shape[1:]), "float32")
    assert np.isfinite(part(x)).all()


def branched():
    inputs = keras.Input((5,))
    parts = [keras.layers.Dense(3)(inputs) for _ in range(2)]
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(parts)))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Spatial(keras.layers.Dense(2)), TypeError, "built"),
        (lambda: Spatial(keras.Sequential([keras.layers.Dense(2)])), TypeError, "built"),
        (lambda: Spatial(dense(), proximity=-1.0), ValueError, "proximity"),
        (lambda: Spatial(dense(), transport=np.nan), ValueError, "transport"),
        (lambda: Spatial(dense(), power=3), ValueError, "power"),
        (lambda: Spatial(branched()), ValueError, "chain"),
        (lambda: Spatial(dense()).split([0, 1]), ValueError, "each of the 4 neurons"),
        (
            lambda: Spatial(
                keras.Sequential([keras.Input((8, 8, 4)), keras.layers.DepthwiseConv2D(3)])
            ),
            ValueError,
            "DepthwiseConv2D",
        ),
    ],
)
def test_errors_say_what_is_allowed(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_spatial_is_a_public_name():
    assert layers.Spatial is Spatial
