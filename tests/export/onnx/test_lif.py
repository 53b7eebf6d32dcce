"""LIF layers in ONNX: a sequence and one step, in every form of the neuron."""

import dataclasses

import keras
import numpy as np
import onnx
import onnx.numpy_helper
import onnx.reference
import pytest

from snukeras.export.errors import ExportError
from snukeras.export.network import Network
from snukeras.export.onnx.build import build
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import compare_onnx, run_onnx, session
from snukeras.export.verify.spikes import contradictions, potentials_of
from snukeras.layers import LIF

FORMS = [
    {"reset_by": [0.1, 0.2, 0.3], "gain": [1.0, 0.5, 2.0], "bias": 0.1},
    {"reset": "zero", "recurrent": True},
    {"reset": "silence", "synaptic_decay": 0.5, "output_delay": True},
    {"several": True, "threshold": 0.2},
]


def network():
    keras.utils.set_random_seed(1)
    layers = [LIF(3, return_sequences=True, **{"threshold": 0.4, **form}) for form in FORMS]
    last = LIF(3, threshold=None, reset=None, synaptic_decay=0.4, return_sequences=True)
    wide = [part for layer in layers for part in (keras.layers.Dense(3), layer)]
    return keras.Sequential([keras.Input((None, 4)), *wide, keras.layers.Dense(3), last])


def test_sequence_and_steps_are_those_of_keras():
    model = network()
    x = 3.0 * np.random.default_rng(0).normal(size=(4, 20, 4)).astype("float32")
    expected = np.asarray(model(x))
    inner = keras.Model(model.inputs, [layer.output for layer in model.layers[1::2]])
    assert all(np.asarray(y).mean() > 0.03 for y in inner(x)[:-1])
    plan = Network.read(model).topology
    proto = build(plan, "m")
    onnx.checker.check_model(proto, full_check=True)
    (found,) = run_onnx(session(proto.SerializeToString()), [x]).values()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Before onnx 1.22 the reference hands a Scan no constants, and as many states as sequences.
    if tuple(map(int, onnx.__version__.split(".")[:2])) >= (1, 22):
        reference = onnx.reference.ReferenceEvaluator(proto)
        (found,) = reference.run(None, {proto.graph.input[0].name: x})
        np.testing.assert_allclose(found, expected, atol=1e-5)
    step = session(build(plan, "m", streaming=True).SerializeToString())
    states = [np.zeros((4, 3), "float32")] * (len(step.get_inputs()) - 1)
    names = [entry.name for entry in step.get_inputs()]
    for t in range(20):
        y, *states = step.run(None, dict(zip(names, [x[:, t], *states], strict=True)))
        np.testing.assert_allclose(y, expected[:, t], atol=1e-5)


@pytest.mark.slow
def test_the_verification_looks_into_every_loop_and_finds_a_wrong_one():
    model = network()
    plain = Network.read(model)
    samples = Samples.random(model, 3)
    samples = dataclasses.replace(samples, batches=[[3.0 * x for x in samples.batches[0]]])
    proto = build(plain.topology, "m")
    found = compare_onnx(plain, proto.SerializeToString(), samples).result
    assert found.ok and len(found.units) == 5
    for unit in found.units:
        assert unit.outputs == 4 * 20 * 3 and unit.contradictions == 0
        assert unit.max_potential_difference < 1e-5
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("/threshold"):
            values = 1.5 * onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    found = compare_onnx(plain, proto.SerializeToString(), samples).result
    assert not found.ok and sum(unit.contradictions for unit in found.units) > 0


@pytest.mark.parametrize("form", FORMS)
def test_decisions_beyond_rounding_are_contradictions_others_are_not(form):
    layer = LIF(3, return_sequences=True, **{"threshold": 0.4, **form})
    x = np.random.default_rng(2).normal(size=(4, 20, 3)).astype("float32")
    y = np.array(layer(x))
    cell, shift = layer.cell, int(layer.cell.output_delay)
    v, bound = potentials_of(cell, x, y)
    assert bound.max() < 1e-4 and contradictions(cell, v, bound, y) == 0
    threshold = np.broadcast_to(np.asarray(cell.threshold), v.shape)
    near = np.abs(v - threshold)[:, : 20 - shift]
    at = np.unravel_index(np.argmin(near), near.shape)
    shown = (at[0], at[1] + shift, at[2])
    y[shown] = 1 - y[shown]
    assert contradictions(cell, v, bound, y) == 1
    v[at] = threshold[at] + (0.9 if y[shown] < 0.5 else -0.9) * bound[at]
    assert contradictions(cell, v, bound, y) == 0


def test_last_output_backwards_states_and_a_start():
    options = {"initial_potential": 0.3, "return_state": True, "go_backwards": True}
    given = keras.Input((None, 3))
    model = keras.Model(given, LIF(3, threshold=0.4, **options)(given))
    x = np.random.default_rng(1).normal(size=(2, 9, 3)).astype("float32")
    proto = build(Network.read(model).topology, "m")
    found = run_onnx(session(proto.SerializeToString()), [x]).values()
    for got, expected in zip(found, model(x), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)
    model = keras.Sequential([keras.Input((None, 3)), LIF(3, initial_potential=0.3,
                                                          return_sequences=True)])  # fmt: skip
    with pytest.raises(ExportError, match="initial_potential"):
        build(Network.read(model).topology, "m", streaming=True)


@pytest.mark.parametrize("zeros", [False, True])
def test_masked_steps_are_those_of_keras_and_verified(zeros):
    keras.utils.set_random_seed(1)
    shown = {"zero_output_for_mask": zeros, "return_sequences": True}
    given = keras.Input((None, 3))
    x = keras.layers.Masking()(given)
    for form in FORMS:
        x = LIF(3, **{"threshold": 0.4, **form}, **shown)(x)
    both = keras.layers.Bidirectional(LIF(3, threshold=0.4, return_sequences=True))(x)
    last = keras.layers.Bidirectional(LIF(3, threshold=0.4, **FORMS[0]), merge_mode="sum")(
        both[..., :3]
    )
    ends = [LIF(3, threshold=0.4, go_backwards=True, output_delay=True)(x), both, last]
    model = keras.Model(given, ends)
    values = 3.0 * np.random.default_rng(0).normal(size=(4, 20, 3)).astype("float32")
    values[0, :3], values[1, 5:9], values[2, 15:], values[3, ::2] = 0, 0, 0, 0
    network = Network.read(model)
    proto = build(network.topology, "m")
    found = run_onnx(session(proto.SerializeToString()), [values]).values()
    for got, expected in zip(found, model(values), strict=True):
        assert np.asarray(expected).any()
        np.testing.assert_allclose(got, expected, atol=1e-6)
    samples = dataclasses.replace(Samples.random(model, 1), batches=[[values]])
    result = compare_onnx(network, proto.SerializeToString(), samples).result
    assert (
        result.ok
        and len(result.units) == 9
        and not sum(unit.contradictions for unit in result.units)
    )
