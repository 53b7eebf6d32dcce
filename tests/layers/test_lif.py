"""LIF steps as its equations say, saves and loads, learns, and refuses what it would not use."""

import keras
import numpy as np
import pytest

from snukeras.layers import LIF, LIFCell

FORMS = {
    "subtract": {},
    "subtracts another amount": {"reset_by": [0.1, 0.2, 0.3]},
    "zero": {"reset": "zero"},
    "silence": {"reset": "silence", "synaptic_decay": 0.5},
    "no reset": {"reset": None, "output_delay": True},
    "synaptic": {"synaptic_decay": [0.2, 0.5, 0.8], "gain": [1.0, 0.5, 2.0]},
    "recurrent": {"recurrent": True, "bias": [0.1, 0.0, -0.1]},
    "several": {"several": True, "initial_potential": [0.5, 0.1, -0.2]},
    "reads out": {"threshold": None, "reset": None, "synaptic_decay": 0.3},
}


def oracle(x, h, decay, threshold, **form):
    """The equations of LIFCell, one neuron's step at a time, in float64."""

    def of(name, default):
        value = form.get(name, default)
        return np.broadcast_to(np.asarray(value, "float64"), x.shape[-1:])

    v = np.broadcast_to(of("initial_potential", 0.0), x.shape[::2]).copy()
    y, i, shown = np.zeros_like(v), np.zeros_like(v), []
    reset, slow = form.get("reset", "subtract"), form.get("synaptic_decay")
    for t in range(x.shape[1]):
        before = y
        i = (
            x[:, t]
            + (before @ h if form.get("recurrent") else 0.0)
            + (0.0 if slow is None else of("synaptic_decay", 0.0) * i)
        )
        d = of("gain", 1.0) * i + of("bias", 0.0)
        if reset == "zero":
            v = decay * v * (1 - before) + d
        elif reset == "silence":
            v = (decay * v + d) * (1 - before)
        elif reset is None:
            v = decay * v + d
        else:
            v = decay * v + d - of("reset_by", threshold) * before
        if threshold is None:
            shown.append(v)
            continue
        y = (v > threshold).astype("float64")
        if form.get("several"):
            y = np.maximum(np.floor(v / threshold), 0.0)
        shown.append(before if form.get("output_delay") else y)
    return np.stack(shown, axis=1)


@pytest.mark.some_cases(5)
@pytest.mark.parametrize("name", FORMS)
def test_a_layer_is_its_equations_and_comes_back_from_a_file(name, tmp_path):
    form = {"threshold": [0.4, 0.5, 0.6], **FORMS[name]}
    keras.utils.set_random_seed(1)
    layer = LIF(3, decay=[0.7, 0.8, 0.9], return_sequences=True, **form)
    model = keras.Sequential([keras.Input((None, 3)), layer])
    x = np.random.default_rng(0).normal(size=(4, 25, 3)).astype("float32")
    h = np.asarray(layer.cell.recurrent_kernel) if form.get("recurrent") else None
    threshold = form.pop("threshold")
    threshold = None if threshold is None else np.array(threshold)
    expected = oracle(x.astype("float64"), h, np.array([0.7, 0.8, 0.9]), threshold, **form)
    found = np.asarray(model(x))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert name == "reads out" or 0.05 < expected.mean() < 1.5
    assert (name == "several") == (expected.max() > 1.0) or name == "reads out"
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(np.asarray(again(x)), found)


def test_gradients_reach_what_stands_before_it_and_its_own_kernel():
    layer = LIF(3, recurrent=True, several=True)
    model = keras.Sequential([keras.Input((None, 4)), keras.layers.Dense(3), layer])
    model.compile("sgd", "mse")
    before = [np.array(weight) for weight in model.trainable_weights]
    model.fit(np.ones((2, 5, 4)), np.ones((2, 3)) * 0.5, verbose=0)
    assert all(np.any(a != np.asarray(b)) for a, b in zip(before, model.weights, strict=True))


def test_last_states_and_masks_are_those_of_keras():
    layer = LIF(2, synaptic_decay=0.5, return_state=True)
    x = np.ones((1, 3, 2), "float32")
    y, *states = layer(x)
    assert [tuple(state.shape) for state in (y, *states)] == [(1, 2)] * 4
    mask = np.array([[True, True, False]])
    np.testing.assert_array_equal(layer(x, mask=mask)[0], layer(x[:, :2])[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decay": 1.5}, "between 0 and 1"),
        ({"decay": [0.5]}, "one per unit"),
        ({"reset": "soft"}, "must be one of 'subtract'"),
        ({"reset": "zero", "reset_by": 1.0}, "`reset_by` must be None"),
        ({"threshold": None}, "without threshold does not fire"),
        ({"several": True, "reset": "zero"}, "several=True"),
        ({"several": True, "threshold": -1.0}, "thresholds positive"),
        ({"units": 0}, "at least 1"),
    ],
)
def test_arguments_that_do_not_go_together(options, words):
    with pytest.raises(ValueError, match=words):
        LIFCell(**{"units": 2, **options})


def test_it_has_no_input_weights_and_says_so():
    with pytest.raises(ValueError, match="Put a Dense layer of 3 units before it"):
        LIF(3)(np.ones((1, 2, 5)))
    with pytest.raises(TypeError, match="no argument `beta`"):
        LIF(3, beta=0.9)


def test_a_reset_of_states_is_the_start():
    layer = LIF(3, initial_potential=[0.9, 0.5, 0.0], stateful=True, return_sequences=True)
    model = keras.Sequential([keras.Input(batch_shape=(2, 4, 3)), layer])
    x = np.full((2, 4, 3), 0.2, "float32")
    first = np.asarray(model(x))
    assert not np.array_equal(first, np.asarray(model(x)))
    layer.reset_state()
    np.testing.assert_array_equal(first, np.asarray(model(x)))
