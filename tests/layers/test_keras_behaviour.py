"""SNU and SSNU do what Keras's own recurrent layers do."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import snukeras  # noqa: F401  (registers the classes)
from snukeras.activations import FastSigmoid
from snukeras.layers import SNU, SSNU, ConvSNU1D, SNUCell, SSNUCell

BATCH, STEPS, FEATURES, UNITS = 4, 9, 5, 8


@pytest.fixture
def x():
    return np.float32(np.random.default_rng(0).normal(size=(BATCH, STEPS, FEATURES)))


def twins(cls, shape=(BATCH, STEPS, FEATURES), **arguments):
    """The same layer on the fused path and on the plain one."""
    keras.utils.set_random_seed(1)
    pair = [cls(UNITS, implementation=i, decay=0.7, **arguments) for i in ("fused", "cell")]
    for layer in pair:
        layer.build(shape)
    pair[1].set_weights(pair[0].get_weights())
    return pair


def assert_equal_nested(a, b, **tolerance):
    for left, right in zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True):
        np.testing.assert_allclose(left, right, **{"atol": 1e-6, **tolerance})


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("cls", [SNU, SSNU])
@pytest.mark.parametrize(
    "arguments",
    [
        dict(zip(("return_sequences", "return_state", "go_backwards"), flags, strict=True))
        for flags in itertools.product((False, True), repeat=3)
    ],
)
def test_both_paths_agree_with_and_without_mask(cls, arguments, x):
    mask = np.random.default_rng(1).random((BATCH, STEPS)) > 0.4
    fused, plain = twins(cls, recurrent=True, **arguments)
    assert_equal_nested(fused(x), plain(x))
    for zero_output in (False, True):
        fused.zero_output_for_mask = plain.zero_output_for_mask = zero_output
        assert_equal_nested(fused(x, mask=mask), plain(x, mask=mask))


@pytest.mark.parametrize("implementation", ["fused", "cell"])
def test_a_fully_masked_sample_keeps_its_state(implementation, x):
    layer = SNU(UNITS, return_state=True, implementation=implementation)
    state = [np.full((BATCH, UNITS), 0.5, "float32"), np.ones((BATCH, UNITS), "float32")]
    mask = np.ones((BATCH, STEPS), bool)
    mask[2] = False
    output, y, s = layer(x, initial_state=state, mask=mask)
    np.testing.assert_array_equal(y[2], state[0][2])
    np.testing.assert_array_equal(s[2], state[1][2])
    np.testing.assert_array_equal(output[2], np.zeros(UNITS))


def test_unroll_takes_the_plain_path_and_agrees(x):
    fused, _ = twins(SNU, return_sequences=True)
    unrolled = SNU(UNITS, decay=0.7, return_sequences=True, unroll=True)
    unrolled.build(x.shape)
    unrolled.set_weights(fused.get_weights())
    np.testing.assert_allclose(unrolled(x), fused(x), atol=1e-6)
    with pytest.raises(ValueError, match="unroll=True"):
        SNU(UNITS, unroll=True, implementation="fused")(x)


@pytest.mark.parametrize("where", ["inputs", "weights"])
def test_nan_is_no_spike(where, x):
    for layer in twins(SNU, return_sequences=True, threshold=-1.0):
        if where == "weights":
            layer.cell.kernel.assign(np.full((FEATURES, UNITS), np.nan))
        given = np.full_like(x, np.nan) if where == "inputs" else x
        assert np.all(np.array(layer(given)) == 0.0)


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("implementation", ["fused", "cell"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "mixed_bfloat16"])
def test_stateful_continues_exactly(implementation, dtype, x):
    whole = SSNU(UNITS, return_sequences=True, recurrent=True, dtype=dtype)
    expected = whole(x)
    inputs = keras.Input(batch_shape=(BATCH, 3, FEATURES))
    layer = SSNU(
        UNITS,
        return_sequences=True,
        recurrent=True,
        stateful=True,
        dtype=dtype,
        implementation=implementation,
    )
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights(whole.get_weights())
    assert all(v.dtype == "float32" for v in layer.states)
    tolerance = {"float32": 1e-6, "float16": 2e-3, "mixed_bfloat16": 1e-2}[dtype]
    for _ in range(2):
        parts = [model(x[:, t : t + 3]) for t in range(0, STEPS, 3)]
        together = np.float32(keras.ops.concatenate(parts, axis=1))
        np.testing.assert_allclose(together, np.float32(expected), atol=tolerance)
        layer.reset_state()
    with pytest.raises(ValueError, match="batch of 4"):
        layer(x[:2, :3])


def test_initial_state_continues_a_sequence(x):
    layer = SNU(UNITS, return_sequences=True, return_state=True, recurrent=True)
    whole, *last = layer(x)
    first, *state = layer(x[:, :4])
    second, *end = layer(x[:, 4:], initial_state=state)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)
    assert_equal_nested(end, last)


def test_bidirectional_and_time_distributed_dense(x):
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            keras.layers.Bidirectional(SNU(UNITS, return_sequences=True)),
            keras.layers.Dense(2),
        ]
    )
    assert model(x).shape == (BATCH, STEPS, 2)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy(x), model(x))


def test_masking_layer_and_variable_length(x):
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            keras.layers.Masking(),
            SNU(UNITS, return_sequences=True),
            SSNU(3),
        ]
    )
    predict = tf.function(model, input_signature=[tf.TensorSpec((None, None, FEATURES))])
    padded = np.concatenate([x, np.zeros((BATCH, 30, FEATURES), "float32")], axis=1)
    np.testing.assert_allclose(predict(padded), predict(x), atol=1e-6)
    assert predict.experimental_get_tracing_count() == 1


def test_lengths_of_one_bucket_share_one_compilation():
    from snukeras.layers.snu.scan import bucket

    sizes = {int(bucket(tf.constant(n))) for n in range(1, 1025)}
    assert len(sizes) == 1 + 4 * 6
    for n in (1, 15, 16, 17, 33, 100, 1000):
        assert n <= int(bucket(tf.constant(n))) <= max(16, 1.25 * n)


@pytest.mark.some_cases(2)
@pytest.mark.parametrize(
    "policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "float64"]
)
@pytest.mark.parametrize("implementation", ["fused", "cell"])
def test_policies(policy, implementation, x):
    layer = SNU(
        UNITS,
        dtype=policy,
        recurrent=True,
        return_state=True,
        return_sequences=True,
        implementation=implementation,
    )
    with tf.GradientTape() as tape:
        output, y, s = layer(x)
        loss = keras.ops.sum(output)
    assert output.dtype == keras.DTypePolicy(policy).compute_dtype
    assert s.dtype == y.dtype == ("float64" if policy == "float64" else "float32")
    assert set(np.unique(np.float32(output))) <= {0.0, 1.0}
    for gradient in tape.gradient(loss, [v.value for v in layer.trainable_variables]):
        assert np.all(np.isfinite(np.float32(gradient)))
    bare = keras.layers.RNN(SNUCell(UNITS, dtype=policy), dtype=policy)
    assert bare(x).dtype == keras.DTypePolicy(policy).compute_dtype


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("cls", [SNU, SSNU])
def test_fit_learns_and_survives_saving(cls, jit_compile, x, tmp_path):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            cls(32, return_sequences=True, recurrent=True, trainable_decay=True, dropout=0.1,
                recurrent_dropout=0.1),
            keras.layers.Dense(FEATURES),
        ]
    )  # fmt: skip
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=jit_compile)
    history = model.fit(x[:, :-1], x[:, 1:], epochs=30, batch_size=2, verbose=0)
    assert history.history["loss"][-1] < 0.9 * history.history["loss"][0]
    decay = model.layers[0].cell.decay_values()
    assert decay.std() > 0 and decay.min() >= 0 and decay.max() <= 1
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))
    assert again.layers[0].get_config() == model.layers[0].get_config()


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["fused", "cell"])
def test_both_paths_train_alike(implementation, x):
    def losses(implementation):
        keras.utils.set_random_seed(5)
        model = keras.Sequential(
            [
                SSNU(UNITS, return_sequences=True, implementation=implementation),
                SSNU(FEATURES, return_sequences=True, implementation=implementation),
            ]
        )
        model.compile("sgd", "mse", steps_per_execution=2)
        return model.fit(x, x, epochs=3, batch_size=1, shuffle=False, verbose=0).history["loss"]

    np.testing.assert_allclose(losses(implementation), losses("cell"), rtol=1e-5)


def test_one_dropout_mask_serves_all_steps():
    for implementation in ("fused", "cell"):
        layer = SSNU(64, dropout=0.5, decay=0.0, return_sequences=True, seed=1,
                     implementation=implementation)  # fmt: skip
        ones = np.ones((2, 5, 30), "float32")
        dropped = layer(ones, training=True).numpy()
        assert np.ptp(dropped, axis=1).max() == 0
        assert np.abs(dropped - layer(ones, training=True).numpy()).max() > 0
        np.testing.assert_array_equal(layer(ones), layer(ones))


ARGUMENTS = dict(
    state_activation="tanh",
    decay=[0.1, 0.9],
    trainable_decay=True,
    threshold=[0.5, 2.0],
    trainable_threshold=False,
    recurrent=True,
    lateral_inhibition=True,
    use_bias=True,
    kernel_initializer="he_normal",
    recurrent_initializer="orthogonal",
    bias_initializer="ones",
    kernel_regularizer="l2",
    recurrent_regularizer="l1",
    bias_regularizer="l2",
    kernel_constraint="non_neg",
    recurrent_constraint="unit_norm",
    bias_constraint="max_norm",
    dropout=0.25,
    recurrent_dropout=0.5,
    seed=7,
)
OF_LAYER = dict(
    return_sequences=True,
    return_state=True,
    go_backwards=True,
    zero_output_for_mask=True,
    implementation="cell",
)


@pytest.mark.parametrize("cls", [SNU, SSNU, SNUCell, SSNUCell])
def test_config_holds_every_argument(cls):
    given = dict(ARGUMENTS)
    if cls in (SNU, SNUCell):
        given["pseudo_derivative"] = FastSigmoid(slope=4.0)
    if issubclass(cls, SNU):
        given |= OF_LAYER
    thing = cls(2, name="unit", **given)
    again = cls.from_config(thing.get_config())
    assert again.get_config() == thing.get_config()
    for name, value in given.items():
        attribute = getattr(again, name)
        if name.endswith(("initializer", "regularizer", "constraint", "activation")):
            kind = name.rsplit("_", 1)[1] + "s"
            assert type(attribute) is type(getattr(keras, kind).get(value)), name
        else:
            assert attribute == value, name
    if issubclass(cls, SNU):
        assert len(again(np.zeros((1, 2, 3), "float32"))) == 3
        assert len(again.losses) == 3


def test_parameters_and_summary(capsys):
    model = keras.Sequential(
        [keras.Input((None, 88)), SNU(150, return_sequences=True), keras.layers.Dense(88)]
    )
    assert model.count_params() == 26_638
    model.summary()
    assert "(None, None, 150)" in capsys.readouterr().out
    assert SNU(4, recurrent=True, trainable_decay=True, use_bias=True).units == 4


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (dict(units=0), ValueError, ["units", "at least 1", "0"]),
        (dict(units=-3), ValueError, ["units", "-3"]),
        (dict(units=2.5), TypeError, ["units", "integer", "2.5"]),
        (dict(units="many"), TypeError, ["units", "'many'"]),
        (dict(decay=1.5), ValueError, ["decay", "between 0 and 1", "1.5"]),
        (dict(decay=-0.1), ValueError, ["decay", "-0.1"]),
        (dict(decay=float("nan")), ValueError, ["decay", "finite", "nan"]),
        (dict(decay=[0.5] * 3), ValueError, ["decay", "(3,)"]),
        (dict(decay="slow"), TypeError, ["decay", "'slow'"]),
        (dict(threshold=float("inf")), ValueError, ["threshold", "finite", "inf"]),
        (dict(state_activation="no_such"), ValueError, ["state_activation", "no_such"]),
        (dict(state_activation=3), ValueError, ["state_activation", "3"]),
        (dict(pseudo_derivative="sharp"), ValueError, ["pseudo_derivative", "'sharp'", "tanh"]),
        (dict(dropout=1.0), ValueError, ["dropout", "below 1", "1.0"]),
        (dict(recurrent_dropout="half"), ValueError, ["recurrent_dropout", "'half'"]),
        (dict(implementation="fast"), ValueError, ["implementation", "fused", "'fast'"]),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error) as raised:
        SNU(**{"units": 2, **arguments})
    for word in words:
        assert word in str(raised.value)


def test_bad_inputs_are_named():
    with pytest.raises(ValueError, match="ndim"):
        SNU(2)(np.zeros((3, 4), "float32"))
    with pytest.raises(ValueError, match=r"\(batch, features\)"):
        SNUCell(2).build((3, 4, 5))
    with pytest.raises(ValueError, match="at least one step"):
        SNU(2)(np.zeros((3, 0, 4), "float32"))
    for layer, shape in [(SNU(2), (3, 6, 4)), (ConvSNU1D(2, 3), (3, 6, 7, 4))]:
        layer.build(shape)
        with pytest.raises(ValueError, match="axis -1 of input shape to have value 4"):
            layer(np.zeros((*shape[:-1], 5), "float32"))
    with pytest.raises(TypeError, match="pseudo_derivative"):
        SSNU(2, pseudo_derivative="tanh")
