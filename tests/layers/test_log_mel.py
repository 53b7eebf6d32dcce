"""Log-mel spectra: scipy's spectrogram, silence, frames that depend on the past alone."""

import keras
import numpy as np
import pytest
from scipy import signal

from snukeras.layers import SNU, LogMel

SOUND = np.random.default_rng(0).normal(size=(3, 2000)).astype("float32") * 0.1


def tone(hertz, amplitude=0.5, samples=2000):
    times = np.arange(samples) / 8000
    return (amplitude * np.sin(2 * np.pi * hertz * times))[None].astype("float32")


def test_powers_are_those_of_scipy():
    layer = LogMel(40, frame_length=256, frame_step=80, floor=0.01)
    # scipy divides by the window's sum, and its windows are periodic by default.
    _, _, spectra = signal.stft(
        SOUND, 8000, "hann", 256, 256 - 80, boundary=None, padded=False, return_onesided=True
    )
    window = signal.get_window("hann", 256)
    powers = np.abs(spectra * window.sum()) ** 2
    expected = np.log1p(np.einsum("bft,fm->btm", powers, layer.mel_matrix) / 0.01)
    frames = 1 + (2000 - 256) // 80
    assert layer(SOUND).shape == (3, frames, 40) == expected.shape
    np.testing.assert_allclose(layer(SOUND), expected, atol=2e-5)


def test_bands_are_those_of_keras():
    theirs = keras.layers.MelSpectrogram(
        fft_length=256, sequence_stride=80, sampling_rate=8000, num_mel_bins=40, power_to_db=False
    )
    padded = np.asarray(theirs(SOUND))  # (batch, bands, frames), its frames centred on a multiple
    ours = np.expm1(np.asarray(LogMel(40)(SOUND[:, 2 * 80 - 128 :]))) * 1e-3
    np.testing.assert_allclose(ours[:, 3], padded[:, :, 5], rtol=1e-3)


def test_a_tone_is_in_its_band_and_ten_decibels_are_a_step():
    layer = LogMel(20, floor=1e-3)
    loud, soft = (np.asarray(layer(tone(1000, a)))[0, 3] for a in (0.5, 0.5 / np.sqrt(10)))
    assert loud.argmax() == soft.argmax()
    centre = np.average(np.arange(129) * 8000 / 256, weights=layer.mel_matrix[:, loud.argmax()])
    assert abs(centre - 1000) < 150
    np.testing.assert_allclose(loud.max() - soft.max(), np.log(10), atol=1e-3)
    np.testing.assert_array_equal(layer(np.zeros((2, 300))), np.zeros((2, 1, 20)))


def test_a_frame_knows_its_own_samples_alone():
    layer = LogMel(40)
    whole = np.asarray(layer(SOUND))
    for frame in (0, 7, 21):
        alone = layer(SOUND[:, 80 * frame : 80 * frame + 256])
        np.testing.assert_allclose(np.asarray(alone)[:, 0], whole[:, frame], atol=1e-5)


def test_half_precision_and_saving(tmp_path):
    half = LogMel(40, dtype="mixed_float16")(SOUND)
    assert half.dtype == "float16"
    np.testing.assert_allclose(np.float32(half), LogMel(40)(SOUND), atol=0.02)
    model = keras.Sequential([keras.Input((None,)), LogMel(24, low=60, high=3800.0), SNU(3)])
    assert model.layers[0].output.shape == (None, None, 24) and not model.layers[0].weights
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(SOUND), model(SOUND))
    config = model.layers[0].get_config()
    assert LogMel.from_config(config).get_config() == config


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(bands=0), ["bands", "at least 1", "0"]),
        (dict(frame_step=2.5), ["frame_step", "integer", "2.5"]),
        (dict(low=-1.0), ["low", "-1.0"]),
        (dict(high=5000), ["high", "4000 Hz", "5000"]),
        (dict(low=2000.0, high=1000.0), ["low < high"]),
        (dict(low="20"), ["low", "'20'"]),
        (dict(low=None), ["low", "None"]),
        (dict(floor=True), ["floor", "True"]),
        (dict(floor=0), ["floor", "above 0", "0"]),
        (dict(bands=120), ["Band", "Take fewer bands"]),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as raised:
        LogMel(**arguments)
    for word in words:
        assert word in str(raised.value)


def test_bad_input_is_named():
    for shape in ((None, 200), (None, 400, 1)):
        with pytest.raises(ValueError, match=r"takes samples of shape \(batch, samples\).*Pad"):
            LogMel()(keras.Input(shape[1:]))


def test_a_sound_shorter_than_a_frame_is_refused_where_any_length_is_allowed():
    # Of no frames there would be no mean: the output would be NaN.
    model = keras.Sequential(
        [keras.Input((None,)), LogMel(), keras.layers.GlobalAveragePooling1D()]
    )
    for samples in (0, 255):
        with pytest.raises(ValueError, match=r"at least 256 of them, a frame.*Pad shorter sounds"):
            model.predict(np.zeros((1, samples), "float32"), verbose=0)
    assert np.isfinite(model.predict(np.zeros((1, 256), "float32"), verbose=0)).all()
