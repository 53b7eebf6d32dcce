"""The task of spoken digits: batches, what training does to a recording, golden inputs."""

import numpy as np
import pytest
from tiny_speech import Syllables, make_recipe

from snukeras.datasets import spoken_digits
from snukeras.layers import LogMel
from snukeras.zoo.tasks import TASKS, SpokenDigits
from snukeras.zoo.tasks.speech import speak


def batches(first_epoch=0, seed=5, task=None, **changes):
    task = task or Syllables()
    data = task.training_data(make_recipe(**changes), seed, first_epoch)
    return [(np.array(x), np.array(y)) for x, y in data]


def test_samples_are_a_second_long():
    for x, y in Syllables().samples.values():
        assert x.shape == (len(y), 8000) and x.dtype == y.dtype == np.float32
        assert np.all(y.sum(axis=1) == 1) and y.shape[1] == 10
        assert not x[:, 4000:].any() and x[:, :3000].any()


def test_an_epoch_hangs_on_seed_and_number_alone():
    changed = {"data": {"speed": 0.2, "gain": 6, "shift": 0.1, "noise": 0.01}}
    whole, resumed = batches(**changed), batches(1, **changed)
    assert len(whole) == 15
    for (x, y), (again, label) in zip(whole[5:], resumed, strict=True):
        np.testing.assert_array_equal(x, again)
        np.testing.assert_array_equal(y, label)
    assert np.any(whole[0][0] != batches(seed=6, **changed)[0][0])


def test_without_changes_recordings_are_as_they_are():
    task = Syllables()
    known = {x.tobytes(): label for x, label in zip(*task.samples["train"], strict=True)}
    for x, y in batches(task=task):
        for sound, label in zip(x, y, strict=True):
            np.testing.assert_array_equal(known[sound.tobytes()], label)


class Tone(SpokenDigits):
    """One recording: 0.4 s of a tone of 500 Hz."""

    def _load(self):
        wave = np.float32(0.5 * np.sin(2 * np.pi * 500 * np.arange(3200) / 8000))
        zeros = np.zeros(64, np.uint8)
        one = spoken_digits.Recordings([wave] * 64, zeros, zeros.astype(str), zeros.astype("int32"))
        return spoken_digits.Splits(one, one, one)


def changed(**data):
    task = Tone()
    return task.drawn(np.arange(64), make_recipe(data=data), np.random.default_rng(0))


def test_speed():
    lengths = [np.flatnonzero(x)[-1] for x in changed(speed=0.25)]
    assert 3200 / 1.25 - 5 <= min(lengths) < 2800 and 3700 < max(lengths) <= 3200 * 1.25 + 5
    tones = np.abs(np.fft.rfft(changed(speed=0.25)[:, :2048])).argmax(axis=1) * 8000 / 2048
    assert 390 < tones.min() < 430 and 590 < tones.max() < 630


def test_gain_and_shift():
    peaks = 20 * np.log10(changed(gain=6).max(axis=1) / 0.5)
    assert -6 <= peaks.min() < -5 and 5 < peaks.max() <= 6.001
    starts = [np.flatnonzero(x)[0] for x in changed(shift=0.2)]
    assert min(starts) < 100 and 1400 < max(starts) <= 1601
    assert all((x != 0).sum() > 3000 for x in changed(shift=2.0))  # nothing is pushed out


def test_noise():
    behind = changed(noise=0.02)[:, 4000:].std(axis=1)
    assert 0.0002 * 0.9 < behind.min() < 0.0004 and 0.01 < behind.max() < 0.021
    quiet, noisy = changed(speed=0.2, gain=3), changed(speed=0.2, gain=3, noise=1e-9)
    np.testing.assert_allclose(quiet[0], noisy[0], atol=1e-6)


def test_tone_is_a_filter_of_each_recording():
    levels = 20 * np.log10(changed(tone=12).max(axis=1) / 0.5)
    assert -12 <= levels.min() < -9 and 9 < levels.max() <= 13  # 500 Hz is one of its points
    spectra = np.abs(np.fft.rfft(changed(tone=12)[:, :3200])).argmax(axis=1)
    assert np.all(spectra == 500 * 3200 / 8000)


def test_gap_is_a_silence_at_any_place():
    silent = (changed(gap=0.1)[:, :3200] == 0).sum(axis=1) - (changed()[:, :3200] == 0).sum(axis=1)
    assert silent.min() < 100 and 600 < silent.max() <= 800
    assert not changed(gap=9.0)[:, 3200:].any()  # no longer than the recording


def test_what_came_later_leaves_earlier_draws_alone():
    without, filtered = changed(speed=0.2, gain=3), changed(speed=0.2, gain=3, tone=1e-9)
    np.testing.assert_allclose(without[0], filtered[0], atol=1e-6)


@pytest.mark.parametrize(
    "data",
    [{"pitch": 1}, {"speed": -0.1}, {"gain": "loud"}, {"gain": True}, {"speed": float("inf")}],
)
def test_bad_data_is_named(data):
    with pytest.raises(ValueError, match=r"may hold speed, gain, shift, noise, .*Received"):
        changed(**data)


def test_a_recipe_may_change_recordings_and_smooth_labels():
    recipe = make_recipe(data={"gain": 6}, loss={"label_smoothing": 0.1})
    Syllables().check(recipe)
    assert Syllables().loss(recipe.loss).label_smoothing == 0.1


@pytest.mark.slow
def test_trains(tmp_path):
    from snukeras.zoo import training

    task = Syllables()
    result = training.train_seed(
        make_recipe(epochs=8), task, 0, tmp_path, progress=lambda event: None
    )
    assert result["test"] > 50


def test_syllables_are_ten_sounds():
    sounds = np.stack([speak(digit) for digit in range(10)])
    assert sounds.dtype == np.float32 and np.abs(sounds).max() == pytest.approx(0.3)
    np.testing.assert_array_equal(sounds[3], speak(3))
    frames = np.asarray(LogMel()(sounds))
    # No band is so empty that rounding in the spectrum would matter.
    assert frames[:, :40].min() > 0
    apart = np.abs(frames[:, None, :45] - frames[None, :, :45]).mean(axis=(2, 3))
    assert apart[~np.eye(10, dtype=bool)].min() > 0.2
    assert len(Syllables().golden_inputs()) == 10 and Syllables().golden_inputs()[0].shape == (
        1,
        8000,
    )


def test_real_data(data_folder):
    task = TASKS["spoken_digits"]
    assert [len(task.samples[split][0]) for split in ("train", "valid", "test")] == [2400, 300, 300]
    (x, mask), *_ = task.measured_inputs()
    assert x.shape == (50, 8000) and mask is None
    held = SpokenDigits("theo")
    assert held.name == "spoken_digits_without_theo" and set(held.recordings["test"].speakers) == {
        "theo"
    }


def test_an_unknown_speaker_is_named_at_once():
    with pytest.raises(ValueError, match=r"`held_out` must be None or one of george.*'anna'"):
        SpokenDigits("anna")
