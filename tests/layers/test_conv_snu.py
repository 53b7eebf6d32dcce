"""Convolutional units against the NumPy oracle, and as Keras layers."""

import itertools

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf

from snukeras.layers import (
    SNU,
    ConvSNU1D,
    ConvSNU2D,
    ConvSNUCell,
    ConvSSNU1D,
    ConvSSNU2D,
    ConvSSNUCell,
)

BATCH, STEPS, CHANNELS, FILTERS = 2, 5, 3, 4
SIZES = {1: (7,), 2: (6, 5)}


def matrix(kernel, sizes, strides, padding, dilation):
    """A convolution of whole maps as one matrix, by the definition; and the indices it is made of.

    Returns the size of the output, and for every entry of the matrix that is not zero its row,
    column and place in the kernel.
    """
    *window, channels, filters = kernel.shape
    reach = [d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True)]
    if padding == "same":
        out = [-(-n // s) for n, s in zip(sizes, strides, strict=True)]
        lost = [
            max((o - 1) * s + r - n, 0)
            for o, s, r, n in zip(out, strides, reach, sizes, strict=True)
        ]
        before = [n // 2 for n in lost]
    else:
        out = [(n - r) // s + 1 for n, r, s in zip(sizes, reach, strides, strict=True)]
        before = [0] * len(out)
    entries = []
    for place in itertools.product(*map(range, out)):
        for tap in itertools.product(*map(range, window)):
            source = [
                p * s + t * d - b
                for p, s, t, d, b in zip(place, strides, tap, dilation, before, strict=True)
            ]
            if not all(0 <= i < n for i, n in zip(source, sizes, strict=True)):
                continue
            for c, f in itertools.product(range(channels), range(filters)):
                row = np.ravel_multi_index((*source, c), (*sizes, channels))
                column = np.ravel_multi_index((*place, f), (*out, filters))
                entries.append((row, column, np.ravel_multi_index((*tap, c, f), kernel.shape)))
    return out, np.array(entries).T


def dense(kernel, shape, entries):
    rows, columns, taps = entries
    unrolled = np.zeros(shape)
    unrolled[rows, columns] = kernel.ravel()[taps]
    return unrolled


def folded(gradient, kernel_shape, entries):
    """The gradient of a kernel from that of its matrix."""
    rows, columns, taps = entries
    total = np.zeros(int(np.prod(kernel_shape)))
    np.add.at(total, taps, gradient[rows, columns])
    return total.reshape(kernel_shape)


class Twin:
    """A layer with random parameters, and the same for the oracle."""

    def __init__(self, cls, rng, **arguments):
        self.rank = 1 if "1D" in cls.__name__ else 2
        self.sizes = SIZES[self.rank]
        if "SSNU" not in cls.__name__:
            arguments.setdefault("pseudo_derivative", "tanh")
        self.layer = layer = cls(
            FILTERS,
            kernel_size=2 if self.rank == 1 else (3, 2),
            state_activation="tanh",
            decay=rng.uniform(0.2, 0.9, FILTERS),
            threshold=rng.uniform(0.0, 0.3, FILTERS),
            trainable_decay=True,
            return_sequences=True,
            return_state=True,
            dtype="float64",
            **arguments,
        )
        layer.build((BATCH, STEPS, *self.sizes, CHANNELS))
        for variable in layer.trainable_variables:
            if "kernel" in variable.name or "bias" in variable.name:
                variable.assign(0.7 * rng.normal(size=variable.shape))
        cell = layer.cell
        kernel = cell.kernel.numpy()
        self.out, self.entries = matrix(
            kernel, self.sizes, cell.strides, cell.padding, cell.dilation_rate
        )
        self.places = int(np.prod(self.out))
        self.shape = (*self.out, FILTERS)
        units = self.places * FILTERS
        loop = None
        if cell.recurrent:
            loop = cell.recurrent_kernel.numpy()
            ones = (1,) * self.rank
            _, self.loop_entries = matrix(loop, self.out, ones, "same", ones)
            loop = dense(loop, (units, units), self.loop_entries)
        self.unit = oracle.Unit(
            kernel=dense(kernel, (int(np.prod(self.sizes)) * CHANNELS, units), self.entries),
            decay=np.tile(cell.decay_values(), self.places),
            threshold=np.tile(cell.threshold_values(), self.places),
            recurrent_kernel=loop,
            bias=np.tile(cell.bias.numpy(), self.places) if cell.use_bias else None,
            g="tanh",
            spiking=cell.spiking,
            lateral_inhibition=cell.lateral_inhibition,
            places=self.places,
        )

    def as_maps(self, value):
        return value.reshape(*value.shape[:-1], *self.shape)

    def gradient(self, name, reference):
        """The oracle's gradient of a weight of the layer."""
        cell = self.layer.cell
        if name == "kernel":
            return folded(reference[name], cell.kernel.shape, self.entries)
        if name == "recurrent_kernel":
            return folded(reference[name], cell.recurrent_kernel.shape, self.loop_entries)
        return reference[name].reshape(self.places, FILTERS).sum(axis=0)


CASES = [
    *itertools.product((ConvSNU2D, ConvSSNU1D), [{}], [False], [False, True], ["cell", "fused"]),
    (ConvSNU2D, {"strides": 2, "padding": "same"}, True, False, "cell"),
    (ConvSSNU1D, {"padding": "same"}, True, False, "cell"),
    (ConvSNU1D, {}, True, True, "auto"),
    (ConvSSNU2D, {}, True, True, "auto"),
]


@pytest.mark.parametrize("cls", [ConvSNU1D, ConvSNU2D])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("more", [{}, {"strides": 2}, {"dilation_rate": 2}])
def test_convolution_of_all_steps(cls, padding, more):
    rng = np.random.default_rng(4)
    twin = Twin(cls, rng, use_bias=True, padding=padding, **more)
    x = rng.normal(size=(BATCH, STEPS, *twin.sizes, CHANNELS))
    drive = twin.layer.cell.project(tf.constant(x))
    expected = x.reshape(BATCH, STEPS, -1) @ twin.unit.kernel + twin.unit.bias
    np.testing.assert_allclose(drive, twin.as_maps(expected), atol=1e-12)
    assert twin.layer.compute_output_shape(x.shape)[0] == drive.shape


@pytest.mark.some_cases(3)
@pytest.mark.parametrize("cls, convolution, recurrent, inhibition, implementation", CASES)
def test_values_and_gradients(cls, convolution, recurrent, inhibition, implementation):
    case = (cls, convolution, recurrent, inhibition, implementation)
    number = CASES.index(case)
    rng = np.random.default_rng(number)
    masked = number % 4 != 1
    twin = Twin(
        cls,
        rng,
        recurrent=recurrent,
        lateral_inhibition=inhibition,
        use_bias=True,
        implementation=implementation,
        **convolution,
    )
    x = rng.normal(size=(BATCH, STEPS, *twin.sizes, CHANNELS))
    s, y = rng.random((2, BATCH, twin.places * FILTERS))
    mask = np.array([[1, 1, 0, 1, 1], [0, 1, 1, 0, 0]], bool) if masked else None
    flat = x.reshape(BATCH, STEPS, -1)
    trace = oracle.forward(twin.unit, flat, mask, s, y)

    sources = {"x": tf.constant(x), "s": tf.constant(twin.as_maps(s)),
               "y": tf.constant(twin.as_maps(y))}  # fmt: skip
    upstream = [
        rng.normal(size=(BATCH, STEPS, *twin.shape)),
        *rng.normal(size=(2, BATCH, *twin.shape)),
    ]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        results = twin.layer(
            sources["x"],
            initial_state=[sources["y"], sources["s"]],
            mask=None if mask is None else tf.constant(mask),
        )
        loss = sum(tf.reduce_sum(r * u) for r, u in zip(results, upstream, strict=True))
    expected = (oracle.outputs(trace), trace[-1]["y"], trace[-1]["s"])
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, twin.as_maps(value), atol=1e-12)

    sources |= {v.name: v.value for v in twin.layer.trainable_variables}
    gradients = tape.gradient(loss, sources)
    reference = oracle.backward(
        twin.unit,
        flat,
        trace,
        upstream[0].reshape(BATCH, STEPS, -1),
        to_y=upstream[1].reshape(BATCH, -1),
        to_s=upstream[2].reshape(BATCH, -1),
    )
    assert {"kernel", "bias", "decay", "threshold"} <= set(gradients)
    for name, gradient in gradients.items():
        if name in "xsy":
            wanted = reference[name].reshape(gradient.shape)
        else:
            wanted = twin.gradient(name, reference)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-7, atol=1e-9, err_msg=name)


def network(implementation="auto", steps=None):
    return keras.Sequential(
        [
            keras.Input((steps, 7, 6, 1)),
            ConvSNU2D(4, (3, 2), return_sequences=True, trainable_decay=True, threshold=0.3,
                      implementation=implementation),
            keras.layers.Reshape((-1, 100)),
            SNU(5, return_sequences=True, implementation=implementation),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_save_and_clone(jit_compile, tmp_path):
    keras.utils.set_random_seed(2)
    model = network(steps=STEPS)
    x = np.random.default_rng(0).random((8, STEPS, 7, 6, 1)).astype("float32")
    y = np.eye(5, dtype="float32")[np.arange(8) % 5]
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=jit_compile)
    losses = model.fit(x, y, epochs=12, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < 0.95 * losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))
    any_length, plain, clone = network(), network("cell"), keras.models.clone_model(model)
    for twin in (any_length, plain, clone):
        twin.set_weights(model.get_weights())
        np.testing.assert_allclose(twin(x), model(x), atol=1e-5)
    np.testing.assert_allclose(plain(x[:, :4]), any_length(x[:, :4]), atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_both_paths_agree_with_dropout_and_half_precision(policy):
    x = np.random.default_rng(0).random((3, 4, 8, 2)).astype("float32")
    tolerance = {"float32": 1e-6, "mixed_bfloat16": 2e-2}[policy]
    outputs = []
    for implementation in ("fused", "cell"):
        keras.utils.set_random_seed(3)
        layer = ConvSSNU1D(3, 3, return_sequences=True, dropout=0.4, seed=1, dtype=policy,
                               implementation=implementation)  # fmt: skip
        outputs.append(np.float32(layer(x, training=True)))
    np.testing.assert_allclose(*outputs, atol=tolerance)


@pytest.mark.parametrize("recurrent", [False, True])
def test_stateful_continues(recurrent):
    x = np.random.default_rng(0).random((2, 6, 8, 2)).astype("float32")
    whole = ConvSSNU1D(3, 3, padding="same", return_sequences=True, recurrent=recurrent)
    expected = whole(x)
    inputs = keras.Input(batch_shape=(2, 3, 8, 2))
    layer = ConvSSNU1D(
        3, 3, padding="same", return_sequences=True, recurrent=recurrent, stateful=True
    )
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights(whole.get_weights())
    for _ in range(2):
        parts = [model(x[:, t : t + 3]) for t in (0, 3)]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, atol=1e-6)
        layer.reset_state()


def test_wrapped_and_backwards():
    x = np.random.default_rng(0).random((2, 6, 8, 2)).astype("float32")
    both = keras.layers.Bidirectional(ConvSNU1D(3, 3, threshold=0.2, return_sequences=True))
    result = both(x)
    assert result.shape == (2, 6, 6, 6)
    back = ConvSNU1D(3, 3, threshold=0.2, go_backwards=True)
    back.build(x.shape)
    back.set_weights(both.backward_layer.get_weights())
    np.testing.assert_array_equal(back(x), result[:, 0, ..., 3:])


@pytest.mark.parametrize("cls", [ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D])
def test_config_holds_every_argument(cls):
    given = dict(
        filters=2,
        kernel_size=3,
        strides=2,
        padding="same",
        state_activation="linear",
        decay=[0.1, 0.9],
        trainable_decay=True,
        threshold=[0.5, 2.0],
        trainable_threshold=False,
        recurrent=True,
        lateral_inhibition=True,
        use_bias=True,
        kernel_regularizer="l2",
        kernel_constraint="non_neg",
        dropout=0.25,
        recurrent_dropout=0.5,
        seed=7,
        return_sequences=True,
        return_state=True,
        zero_output_for_mask=True,
        implementation="cell",
        name="unit",
    )
    layer = cls(**given)
    again = cls.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    for name in ("filters", "decay", "threshold", "padding", "dropout", "seed", "implementation"):
        assert getattr(again, name) == given[name]
    assert set(again.strides) == {2} and set(again.kernel_size) == {3}
    cell = layer.cell
    assert type(cell).from_config(cell.get_config()).get_config() == cell.get_config()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(filters=0), ["filters", "0"]),
        (dict(kernel_size=0), ["kernel_size", "positive"]),
        (dict(kernel_size=(3,)), ["kernel_size", "2 of them", "(3,)"]),
        (dict(strides="2"), ["strides", "'2'"]),
        (dict(padding="full"), ["padding", "'full'", "same"]),
        (dict(strides=2, dilation_rate=2), ["strides", "dilation_rate"]),
        (dict(data_format="channels_first"), ["channels last"]),
        (dict(decay=[0.5] * 3), ["decay", "(3,)"]),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as raised:
        ConvSNU2D(**{"filters": 2, "kernel_size": 3, **arguments})
    for word in words:
        assert word in str(raised.value)


def test_bad_inputs_are_named():
    with pytest.raises(ValueError, match="ndim"):
        ConvSNU2D(2, 3)(np.zeros((1, 2, 3, 4), "float32"))
    with pytest.raises(ValueError, match="leaves nothing of a map of size"):
        ConvSNU2D(2, 5)(np.zeros((1, 2, 4, 4, 1), "float32"))
    with pytest.raises(ValueError, match="known sizes"):
        ConvSNU2D(2, 3)(keras.Input((2, None, 4, 1)))
    with pytest.raises(ValueError, match="no recurrent convolution"):
        ConvSNU1D(2, 3, recurrent=True, implementation="fused")(np.zeros((1, 2, 4, 1), "float32"))
    with pytest.raises(TypeError, match="pseudo_derivative"):
        ConvSSNU1D(2, 3, pseudo_derivative="tanh")
    with pytest.raises(TypeError, match="pseudo_derivative"):
        ConvSSNUCell(1, 2, 3, pseudo_derivative="tanh")
    with pytest.raises(ValueError, match="build it first"):
        ConvSNUCell(1, 2, 3).get_initial_state(2)
