"""Kernels of units in int8 and int4, and with LoRA, as Keras has them for Dense."""

import keras
import numpy as np
import pytest

from snukeras.constraints import PCMConstraint
from snukeras.layers import SNU, SSNU, ConvSNU2D

LAYERS = keras.layers
SHAPES = {"plain": (None, 20), "maps": (None, 6, 6, 3)}


def network(kind="plain", **options):
    keras.utils.set_random_seed(2)
    if kind == "maps":
        layers = [ConvSNU2D(4, 3, return_sequences=True, **options), LAYERS.Reshape((-1, 64))]
    else:
        layers = [
            SNU(16, recurrent=True, use_bias=True, return_sequences=True, **options),
            SSNU(12, recurrent=True, trainable_decay=True, return_sequences=True),
        ]
    return keras.Sequential([keras.Input(SHAPES[kind]), *layers, LAYERS.Dense(3)])


def samples(kind="plain"):
    shape = (4, 6, *SHAPES[kind][1:])
    return (np.random.default_rng(0).random(shape) < 0.3).astype("float32")


@pytest.mark.slow
@pytest.mark.some_cases(1)
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantised_like_the_rounded_kernel_and_saved(tmp_path, mode, kind):
    model, x = network(kind), samples(kind)
    before = model.layers[0].cell.kernel.numpy()
    model.quantize(mode)
    cell = model.layers[0].cell
    held = [str(variable.dtype) for variable in cell.held("kernel")]
    assert held[0] == "int8" and cell.quantization_mode == mode
    after = keras.ops.convert_to_numpy(cell.kernel)
    steps = {"int8": 127, "int4": 7}[mode]
    limit = np.abs(before).max(axis=tuple(range(before.ndim - 1))) / steps
    assert after.shape == before.shape and np.all(np.abs(after - before) <= 1.2 * limit)
    expected = model.predict(x, verbose=0)
    float_twin = network(kind)
    for ours, theirs in zip(model.layers, float_twin.layers, strict=True):
        if hasattr(ours, "cell"):
            for role in ("kernel", "recurrent_kernel"):
                value = getattr(ours.cell, role)
                if value is not None:
                    getattr(theirs.cell, role).assign(value)
    units = len([layer for layer in model.layers if hasattr(layer, "cell")])
    first = keras.Model(model.inputs, model.layers[units - 1].output)
    twin = keras.Model(float_twin.inputs, float_twin.layers[units - 1].output)
    np.testing.assert_allclose(
        first.predict(x, verbose=0), twin.predict(x, verbose=0), rtol=1e-5, atol=1e-5
    )
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.layers[0].cell.quantization_mode == mode
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
    loaded.summary(print_fn=lambda *_, **__: None)
    again = keras.models.clone_model(loaded)
    assert again.layers[0].cell.quantization_mode == mode


def test_a_policy_and_the_layer_itself():
    layer = SNU(4, dtype="int8_from_float32", return_sequences=True)
    assert layer(np.zeros((1, 2, 3), "float32")).shape == (1, 2, 4)
    assert str(layer.cell.held("kernel")[0].dtype) == "int8"
    layer = SNU(4)
    with pytest.raises(ValueError, match="built"):
        layer.quantize("int8")
    layer.build((None, None, 3))
    layer.quantize("int8")
    with pytest.raises(ValueError, match="already quantized"):
        layer.quantize("int8")


@pytest.mark.slow
def test_quantised_beside_lora_and_trained(tmp_path):
    model, x = network(), samples()
    before = [v.numpy() for v in model.layers[0].cell.held("kernel")]
    untouched = model.predict(x, verbose=0)
    for layer in model.layers[:2]:
        layer.enable_lora(2, lora_alpha=4)
    np.testing.assert_array_equal(model.predict(x, verbose=0), untouched)
    names = {v.path.split("/")[-1] for v in model.layers[0].trainable_variables}
    assert names == {
        "kernel_lora_a", "kernel_lora_b", "recurrent_kernel_lora_a", "recurrent_kernel_lora_b",
        "bias", "threshold",
    }  # fmt: skip
    model.compile("adam", "mse")
    model.fit(x, np.ones((4, 6, 3)), epochs=2, verbose=0)
    cell = model.layers[0].cell
    np.testing.assert_array_equal(cell.held("kernel")[0].numpy(), before[0])
    assert np.abs(cell.kernel_lora_b.numpy()).max() > 0
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "m.keras")
    merged = keras.models.load_model(tmp_path / "m.keras")
    assert not merged.layers[0].cell.lora_enabled
    np.testing.assert_allclose(merged.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-5)
    merged.quantize("int8")
    merged.layers[0].enable_lora(2)
    merged.layers[0].cell.kernel_lora_b.assign(np.ones((2, 16)))
    changed = keras.ops.convert_to_numpy(merged.layers[0].cell.kernel)
    merged.save(tmp_path / "q.keras")
    again = keras.models.load_model(tmp_path / "q.keras")
    rounded = keras.ops.convert_to_numpy(again.layers[0].cell.kernel)
    assert np.all(np.abs(rounded - changed) <= np.abs(changed).max(axis=0) / 127)


def test_refusals():
    layer = SNU(4)
    with pytest.raises(ValueError, match="must be built"):
        layer.enable_lora(2)
    layer.build((None, None, 3))
    with pytest.raises(ValueError, match="rank"):
        layer.enable_lora(0)
    with pytest.raises(NotImplementedError, match="float8"):
        layer.quantize("float8")
    layer.enable_lora(2)
    with pytest.raises(ValueError, match="already"):
        layer.enable_lora(2)
    held = SNU(4, kernel_constraint=PCMConstraint())
    held.build((None, None, 3))
    with pytest.raises(ValueError, match="kernel_constraint"):
        held.enable_lora(2)


@pytest.mark.slow
@pytest.mark.parametrize("block", [8, None])
def test_blocks_of_int4_and_configs(block):
    if not hasattr(keras.quantizers, "Int4QuantizationConfig"):
        pytest.skip("this Keras has no quantisation configs")
    model, x = network(), samples()
    model.quantize(config=keras.quantizers.Int4QuantizationConfig(block_size=block))
    cell = model.layers[0].cell
    assert len(cell.held("kernel")) == (3 if block else 2)
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(twin.layers[0].cell.kernel),
        keras.ops.convert_to_numpy(cell.kernel),
    )
    assert np.isfinite(model.predict(x, verbose=0)).all()
    layer = SNU(4)
    layer.build((None, None, 3))
    wide = keras.quantizers.AbsMaxQuantizer(value_range=(-7, 7))
    with pytest.raises(ValueError, match="activation_quantizer"):
        layer.quantize(config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=wide))
