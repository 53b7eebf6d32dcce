"""Check the layers on the backend of KERAS_BACKEND; run by test_backends.py, not by pytest.

Usage: check_backend.py FOLDER
Prints, as JSON, the errors of the checks by name, None where a check holds.
"""

import itertools
import json
import sys
import traceback
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import oracle

import snukeras
from snukeras.layers import SNU, SSNU, ConvSNU2D, ElasticDistortion, LevelCrossing, LogMel, SNUCell

BATCH, STEPS, FEATURES, UNITS = 3, 7, 5, 6


def build(cls, rng, g="relu", **arguments):
    if cls is SNU:
        arguments.setdefault("pseudo_derivative", "tanh")
    layer = cls(
        UNITS,
        state_activation=g,
        decay=rng.uniform(0.2, 0.9, UNITS),
        threshold=rng.uniform(0.1, 0.6, UNITS),
        trainable_decay=True,
        return_sequences=True,
        return_state=True,
        **arguments,
    )
    layer.build((BATCH, STEPS, FEATURES))
    cell = layer.cell
    unit = oracle.Unit(
        kernel=array(cell.kernel),
        decay=array(cell.decay_tensor()),
        threshold=array(cell.threshold_tensor()),
        recurrent_kernel=array(cell.recurrent_kernel) if cell.recurrent else None,
        bias=array(cell.bias) if cell.use_bias else None,
        g=g,
        spiking=cls is SNU,
        lateral_inhibition=cell.lateral_inhibition,
    )
    return layer, unit


def array(value):
    return np.float64(keras.ops.convert_to_numpy(value))


def random_mask(rng):
    mask = rng.random((BATCH, STEPS)) > 0.35
    mask[0] = True
    mask[1, :2] = False
    mask[1, 3] = True
    return mask


def values(folder):
    cases = itertools.product(
        (SNU, SSNU), (False, True), ("relu", "tanh"), (False, True), (False, True), (False, True)
    )
    for number, (cls, recurrent, g, masked, inhibition, given) in enumerate(cases):
        rng = np.random.default_rng(number)
        layer, unit = build(
            cls, rng, g, recurrent=recurrent, lateral_inhibition=inhibition, use_bias=recurrent
        )
        x = rng.normal(size=(BATCH, STEPS, FEATURES)).astype("float32")
        mask = random_mask(rng) if masked else None
        s, y = rng.random((2, BATCH, UNITS)).astype("float32") if given else (None, None)
        trace = oracle.forward(unit, np.float64(x), mask, s, y)
        results = layer(x, initial_state=[y, s] if given else None, mask=mask)
        expected = (oracle.outputs(trace), trace[-1]["y"], trace[-1]["s"])
        for result, value in zip(results, expected, strict=True):
            np.testing.assert_allclose(array(result), value, atol=2e-6, err_msg=str(number))


def images(folder):
    """An image that is distorted keeps its shape and most of its light."""
    image = np.zeros((2, 12, 12, 1), "float32")
    image[:, 4:8, 4:8] = 1.0
    found = array(ElasticDistortion(seed=0)(image, training=True))
    assert found.shape == image.shape and np.abs(found - image).max() > 0.01
    assert abs(found.sum() / image.sum() - 1.0) < 0.5


def sound(folder):
    """A log-mel spectrum in steps, and the levels that it crosses."""
    times = np.arange(1000) / 8000
    tone = (0.5 * np.sin(2 * np.pi * 1000 * times))[None].astype("float32")
    spectrum = LogMel(20)(tone)
    assert tuple(spectrum.shape) == (1, 10, 20)
    power = (0.5 * 256 / 4) ** 2  # of a Hann window at the tone itself
    layer = LogMel(20)
    weight = layer.mel_matrix[32].max()
    assert abs(array(spectrum).max() - np.log1p(power * weight / layer.floor)) < 0.5
    spikes = array(LevelCrossing(0.5)(spectrum))
    assert spikes.shape == (1, 10, 40) and set(np.unique(spikes)) <= {0.0, 1.0}
    assert spikes[0, 0, :20].any() and not spikes[0, 0, 20:].any()


def gradients(folder):
    """One step of gradient descent moves the weights by the oracle's gradients."""
    for cls, recurrent in itertools.product((SNU, SSNU), (False, True)):
        rng = np.random.default_rng(9)
        layer, unit = build(cls, rng, recurrent=recurrent, use_bias=True)
        x = rng.normal(size=(BATCH, STEPS, FEATURES)).astype("float32")
        inputs = keras.Input((STEPS, FEATURES))
        model = keras.Model(inputs, layer(inputs)[0])
        model.compile(keras.optimizers.SGD(1.0), "mse")
        names = [v.name for v in model.trainable_variables]
        before = [array(v) for v in model.trainable_variables]
        y = rng.normal(size=(BATCH, STEPS, UNITS)).astype("float32")
        model.fit(x, y, batch_size=BATCH, verbose=0)
        trace = oracle.forward(unit, np.float64(x))
        upstream = 2 * (oracle.outputs(trace) - y) / y.size
        reference = oracle.backward(unit, np.float64(x), trace, upstream)
        assert {"kernel", "bias", "threshold", "decay"} <= set(names)
        for name, old, variable in zip(names, before, model.trainable_variables, strict=True):
            expected = old - reference[name]
            if name == "decay":
                expected = expected.clip(0, 1)
            np.testing.assert_allclose(array(variable), expected, atol=1e-6, err_msg=name)


def saving(folder):
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(0).normal(size=(BATCH, STEPS, FEATURES)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            SNU(UNITS, return_sequences=True, recurrent=True, dropout=0.1, recurrent_dropout=0.1),
            keras.layers.Bidirectional(SSNU(4, return_sequences=True)),
            keras.layers.RNN(SNUCell(3), return_sequences=True),
            keras.layers.Dense(FEATURES),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "mse")
    losses = model.fit(x, x, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < 0.95 * losses[0]
    model.save(Path(folder) / "model.keras")
    again = keras.models.load_model(Path(folder) / "model.keras")
    np.testing.assert_array_equal(array(again(x)), array(model(x)))


def masks(folder):
    """Every combination of what is returned, against the oracle."""
    flags = itertools.product((False, True), repeat=4)
    for sequences, backwards, zero, padded in flags:
        rng = np.random.default_rng(4)
        layer, unit = build(SNU, rng, recurrent=True, go_backwards=backwards)
        layer.return_sequences, layer.zero_output_for_mask = sequences, zero
        x = rng.normal(size=(BATCH, STEPS, FEATURES)).astype("float32")
        mask = random_mask(rng)
        mask[1, 4:] = False
        mask[2] = not padded
        order = slice(None, None, -1 if backwards else 1)
        trace = oracle.forward(unit, np.float64(x[:, order]), mask[:, order])
        expected = oracle.outputs(trace, zero)
        expected = expected if sequences else expected[:, -1]
        output, y, s = layer(x, mask=mask)
        case = str((sequences, backwards, zero, padded))
        np.testing.assert_allclose(array(output), expected, atol=2e-6, err_msg=case)
        np.testing.assert_allclose(array(s), trace[-1]["s"], atol=2e-6, err_msg=case)
        np.testing.assert_allclose(array(y), trace[-1]["y"], atol=2e-6, err_msg=case)


def stateful(folder):
    x = np.random.default_rng(0).normal(size=(BATCH, 9, FEATURES)).astype("float32")
    whole = SSNU(UNITS, return_sequences=True, recurrent=True)
    expected = array(whole(x))
    inputs = keras.Input(batch_shape=(BATCH, 3, FEATURES))
    layer = SSNU(UNITS, return_sequences=True, recurrent=True, stateful=True)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights(whole.get_weights())
    for _ in range(2):
        parts = [array(model(x[:, t : t + 3])) for t in range(0, 9, 3)]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, atol=2e-6)
        layer.reset_state()
    if keras.backend.backend() != "torch":
        return
    # Variables change in place there, and gradients need the states of before.
    decays = {"decay": 0.5, "synaptic_decay": 0.7, "initial_potential": 0.1}
    parts = np.random.default_rng(1).random((2, BATCH, 3, UNITS)).astype("float32")
    kinds = [(SNU, {}), (SSNU, {}), (snukeras.layers.LIF, decays)]
    for kind, arguments in kinds:
        given = keras.Input(batch_shape=(BATCH, 3, UNITS))
        layer = kind(UNITS, recurrent=True, stateful=True, **arguments)
        model = keras.Model(given, layer(given))
        model.compile("sgd", "mse")
        for part in parts:
            model.train_on_batch(part, np.ones((BATCH, UNITS), "float32"))
        model(parts[0])
        states = [array(state) for state in layer.states]
        assert len({state.tobytes() for state in states}) == len(states)


def padding(folder):
    x = np.random.default_rng(0).normal(size=(BATCH, STEPS, FEATURES)).astype("float32")
    model = keras.Sequential(
        [keras.layers.Masking(), SNU(UNITS, return_sequences=True), SSNU(3, go_backwards=True)]
    )
    padded = np.concatenate([x, np.zeros((BATCH, 5, FEATURES), "float32")], axis=1)
    np.testing.assert_allclose(array(model(padded)), array(model(x)), atol=1e-6)


def fused(folder):
    """The fast path and the plain one agree: values and gradients, whatever is set."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(BATCH, STEPS, FEATURES)).astype("float32")
    mask = random_mask(rng)
    state = list(rng.random((2, BATCH, UNITS)).astype("float32"))
    cases = [
        (SNU, {"recurrent": True, "recurrent_dropout": 0.4}, "float32", True, True),
        (SNU, {"lateral_inhibition": True, "trainable_decay": True}, "float64", True, False),
        (SNU, {"trainable_decay": True, "state_activation": "tanh"}, "float32", False, True),
        (SNU, {"dropout": 0.4, "go_backwards": True}, "mixed_bfloat16", False, False),
        (SSNU, {"recurrent": True, "lateral_inhibition": True}, "mixed_bfloat16", False, True),
        (SSNU, {"trainable_decay": True, "state_activation": "softplus"}, "float64", True, True),
        (SNU, {"trainable_threshold": False, "recurrent": True}, "float32", False, False),
    ]
    for number, (cls, settings, dtype, masked, given) in enumerate(cases):
        if dtype == "float64" and keras.backend.backend() == "jax":
            dtype = "float32"  # JAX has float64 only where jax_enable_x64 is set
        results = []
        for implementation in ("fused", "cell"):
            layer = cls(
                UNITS,
                implementation=implementation,
                return_sequences=True,
                return_membrane=True,
                return_state=True,
                seed=1,
                dtype=dtype,
                **settings,
            )
            layer.build(x.shape)
            values = np.random.default_rng(2)
            layer.set_weights([0.4 * abs(values.normal(size=w.shape)) for w in layer.weights])
            found = loss_and_gradients(layer, x, mask if masked else None, state if given else None)
            results.append(found)
        exact = dtype != "mixed_bfloat16"
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(
                one, other, atol=2e-5 if exact else 0.06, rtol=1e-4 if exact else 0.1,
                err_msg=str(cases[number]),
            )  # fmt: skip
    unrolled = SNU(UNITS, implementation="fused", unroll=True)
    try:
        unrolled(x)
    except ValueError as error:
        assert "unroll" in str(error)
    else:
        raise AssertionError("implementation='fused' was accepted with unroll=True")


def large(folder):
    """Many products in one, and many blocks of steps, give what single steps give."""
    rng = np.random.default_rng(8)
    x = (rng.random((16, 40, 100)) < 0.3).astype("float32")
    for cls, recurrent in ((SNU, False), (SSNU, True)):
        results = []
        for implementation in ("fused", "cell"):
            keras.utils.set_random_seed(1)
            spiking = {"pseudo_derivative": "tanh"} if cls is SNU else {}
            layer = cls(256, "relu", 0.5, recurrent=recurrent, implementation=implementation,
                        return_sequences=True, return_state=True, **spiking)  # fmt: skip
            layer.build(x.shape)
            values = np.random.default_rng(2)
            # Sums of such numbers are exact in any order, so that no spike hangs on rounding.
            parts = [np.round(5 * values.normal(size=w.shape)) / 256 for w in layer.weights]
            layer.set_weights(parts)
            results.append(loss_and_gradients(layer, x, None, None))
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3, err_msg=cls.__name__)


def loss_of(layer, x, mask, state):
    """A number that depends on all results of a layer, each in its own way."""
    results = layer(x, initial_state=state, mask=mask, training=True)
    total = 0.0
    for number, result in enumerate(results):
        weights = np.random.default_rng(number).normal(size=tuple(result.shape)) / 10
        result = keras.ops.cast(result, "float32")
        total = total + keras.ops.sum(result * keras.ops.cast(weights, "float32"))
    return total


def loss_and_gradients(layer, x, mask, state):
    """The loss, and its gradients with respect to inputs, first states and weights."""
    weights = layer.trainable_variables
    if keras.backend.backend() == "jax":
        import jax

        def loss(x, state, values):
            mapping = list(zip(weights, values, strict=True))
            mapping += [(v, v.value) for v in layer.non_trainable_variables]
            with keras.StatelessScope(state_mapping=mapping):
                return loss_of(layer, x, mask, state)

        values = [v.value for v in weights]
        found, gradients = jax.value_and_grad(loss, (0, 1, 2), allow_int=True)(x, state, values)
        return [array(value) for value in jax.tree.leaves((found, gradients))]
    import torch

    leaves = [torch.tensor(value, requires_grad=True) for value in (x, *(state or ()))]
    found = loss_of(layer, leaves[0], mask, leaves[1:] or None)
    gradients = torch.autograd.grad(found, leaves + [v.value for v in weights])
    return [array(value.detach()) for value in (found, *gradients)]


def convolutions(folder):
    """Feature maps, with inhibition among the filters of a place or without."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2, 5, 6, 6, 2)).astype("float32")
    for inhibition in (False, True):
        results = []
        for implementation in ("fused", "cell"):
            keras.utils.set_random_seed(1)
            layer = ConvSNU2D(3, 3, implementation=implementation, return_sequences=True,
                              lateral_inhibition=inhibition, return_membrane=True)  # fmt: skip
            results.append([array(result) for result in layer(x)])
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def second_derivatives(folder):
    """Gradients of gradients are those of the plain equations, by finite differences."""
    rng = np.random.default_rng(7)
    x, direction = rng.normal(size=(2, BATCH, STEPS, FEATURES)).astype("float32")
    keras.utils.set_random_seed(1)
    layer = SSNU(UNITS, "tanh", recurrent=True, return_sequences=True)  # no kinks
    layer.build(x.shape)
    if keras.backend.backend() == "jax":
        import jax

        first = jax.grad(lambda x: (layer(x) ** 2).sum())
        second = jax.grad(lambda x: (first(x) * direction).sum())(x)
    else:
        import torch

        def first(x):
            x = torch.as_tensor(x).clone().requires_grad_(True)
            return torch.autograd.grad((layer(x) ** 2).sum(), x)[0]

        leaf = torch.tensor(x, requires_grad=True)
        (slope,) = torch.autograd.grad((layer(leaf) ** 2).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad((slope * torch.tensor(direction)).sum(), leaf)
    step = 1e-2 * direction
    expected = (array(first(x + step)) - array(first(x - step))) / 2e-2
    np.testing.assert_allclose(array(second), expected, atol=2e-3)


def imports(folder):
    assert "tensorflow" not in sys.modules, "snukeras.layers imports TensorFlow"


def watched(folder):
    """Traces, membranes and calibration on the plain path."""
    keras.utils.set_random_seed(1)
    x = (np.random.default_rng(0).random((8, STEPS, 20)) < 0.3).astype("float32")
    layers = [SNU(20, recurrent=True, return_sequences=True), SNU(UNITS)]
    model = keras.Sequential([keras.Input((STEPS, 20)), *layers])
    for rate in snukeras.initializers.calibrate(model, x, rate=0.2).values():
        assert 0.1 < rate < 0.3, rate
    traced = snukeras.trace(model, x)
    assert traced[layers[1].name]["membranes"].shape == (8, STEPS, UNITS)
    np.testing.assert_array_equal(traced[layers[1].name]["spikes"][:, -1], array(model(x)))
    layer = SNU(UNITS, return_membrane=True)
    spikes, membrane = layer(x)
    np.testing.assert_array_equal(array(spikes), array(membrane) > layer.threshold)


def lif(folder):
    """Neurons that put out something else than their first state show it again at masked steps."""
    x = np.random.default_rng(0).normal(size=(2, 6, UNITS)).astype("float32")
    mask = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0]], bool)
    forms = {
        "potentials": {"threshold": None, "reset": None},
        "delayed": {"output_delay": True, "threshold": 0.3},
        "spikes": {"threshold": 0.3},
    }
    for name, form in forms.items():
        layer = snukeras.layers.LIF(
            UNITS, decay=0.5, return_sequences=True, return_state=True, **form
        )
        found, y, v = (array(part) for part in layer(x, mask=mask))
        for row in range(len(x)):
            spike, potential, shown = np.zeros((3, UNITS), "float32")
            for step in range(x.shape[1]):
                if mask[row, step]:
                    before = spike
                    potential = 0.5 * potential + x[row, step]
                    if name != "potentials":
                        potential = potential - np.float32(0.3) * before
                        spike = (potential > 0.3).astype("float32")
                    shown = {"potentials": potential, "delayed": before, "spikes": spike}[name]
                np.testing.assert_allclose(found[row, step], shown, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(v[row], potential, atol=1e-6, err_msg=name)
            np.testing.assert_array_equal(y[row], spike, err_msg=name)


CHECKS = (
    imports,
    lif,
    values,
    gradients,
    saving,
    masks,
    stateful,
    padding,
    fused,
    large,
    convolutions,
    second_derivatives,
    sound,
    images,
    watched,
)


def main(folder):
    errors = {}
    for check in CHECKS:
        try:
            check(folder)
            errors[check.__name__] = None
        except Exception:
            errors[check.__name__] = traceback.format_exc()
    print(json.dumps(errors))


if __name__ == "__main__":
    main(*sys.argv[1:])
