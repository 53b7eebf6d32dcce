"""SET-pulse staircases against reference tables; RESET, saturation, reading."""

import csv
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.pcm import ExpStepPCM, NandakumarPCM, PulseState

REFERENCE = Path(__file__).parent / "reference"


def table(name):
    with (REFERENCE / name).open() as lines:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]
    return {int(row["pulse"]): row for row in rows}


def staircase(device, pulses, count=200_000):
    state = device.reset((count,))
    yield 0, state.conductance.numpy()
    everywhere = tf.ones((count,), bool)
    pulse = tf.function(device.pulse)
    for n in range(1, pulses + 1):
        state = pulse(state, everywhere, float(n))
        yield n, state.conductance.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("g_max", [12, 20])
def test_staircase_of_2018(g_max):
    rows = table(f"set_staircase_2018_gmax{g_max}.csv")
    before = None
    for n, g in staircase(NandakumarPCM(g_max, seed=g_max), 40):
        if n in rows:
            assert g.mean() == pytest.approx(rows[n]["G_mean_uS"], rel=0.01)
            assert g.std() == pytest.approx(rows[n]["G_std_uS"], rel=0.02)
            if n:
                step = g - before
                assert step.mean() == pytest.approx(rows[n]["dG_mean_uS"], rel=0.02, abs=0.01)
                assert step.std() == pytest.approx(rows[n]["dG_std_uS"], rel=0.02)
        before = g


@pytest.mark.slow
def test_staircase_of_2020():
    rows = table("set_staircase_2020.csv")
    device = ExpStepPCM(g_max=25.0, reset_mean=0.0, reset_std=0.0, seed=1)
    for n, g in staircase(device, 40):
        if n and n in rows:
            w = g * 2 / 25.0
            assert w.mean() == pytest.approx(rows[n]["w_mean_noDtoD"], rel=0.01)
            assert w.std() == pytest.approx(rows[n]["w_std_noDtoD"], rel=0.02)


def test_pulses_go_only_where_asked():
    device = NandakumarPCM(seed=1)
    state = device.reset((2, 3), t=5.0)
    where = np.array([[True, False, False], [False, False, True]])
    after = device.pulse(state, where, t=9.0)
    same = after.conductance.numpy() == state.conductance.numpy()
    np.testing.assert_array_equal(same, ~where)
    np.testing.assert_array_equal(after.pulses, where.astype(float))
    np.testing.assert_array_equal(after.time, np.where(where, 9.0, 5.0))
    fresh = device.reset_where(after, ~where, t=11.0)
    np.testing.assert_array_equal(fresh.conductance[0, 0], after.conductance[0, 0])
    np.testing.assert_array_equal(fresh.pulses, where.astype(float))
    np.testing.assert_array_equal(fresh.time, np.where(where, 9.0, 11.0))
    assert np.all(np.abs(fresh.conductance.numpy()[~where] - 0.1) < 0.06)


@pytest.mark.parametrize("device", [NandakumarPCM(12.0, seed=2), ExpStepPCM(12.0, seed=2)])
def test_saturates_within_the_range(device):
    state = device.reset((2000,))
    for _ in range(100):
        state = device.pulse(state, np.ones(2000, bool))
    g = state.conductance.numpy()
    assert g.max() == pytest.approx(12.0) and g.min() >= 0.0
    assert isinstance(state, PulseState)


def test_reading_of_2018():
    device = NandakumarPCM(seed=3)
    state = PulseState(np.full(200_000, 8.0, "float32"), np.zeros(200_000), np.zeros(200_000))
    for t, mean in ((0.0, 8.0), (38.6, 8.0), (3860.0, 8.0 * 100**-0.04)):
        read = device.read(state, t)
        assert read.mean() == pytest.approx(mean, rel=0.002)
        assert read.std() == pytest.approx(0.03 * mean + 0.13, rel=0.02)
    quiet = NandakumarPCM(noise=0.0, drift=0.0)
    np.testing.assert_allclose(quiet.read(state, 1e6), 8.0, rtol=1e-6)
    with pytest.raises(ValueError, match="before the last pulse"):
        device.read(state, -1.0)


def test_granularity_is_the_mean_step():
    # 0.774 uS over ten pulses for the noisy device, whose lower bound lifts the mean a little.
    assert NandakumarPCM().granularity(10) == pytest.approx(0.774, rel=0.05)
    assert NandakumarPCM().granularity(5) == pytest.approx(1.16, rel=0.05)
    assert ExpStepPCM(g_max=2.0).granularity(1) == pytest.approx(0.276, rel=0.02)


def test_seeds_and_config():
    for device in (NandakumarPCM(12.0, 0.5, seed=4), ExpStepPCM(20.0, seed=4)):
        other = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(device))
        assert other.get_config() == device.get_config()
        np.testing.assert_array_equal(device.reset((5,)).conductance, other.reset((5,)).conductance)
    with pytest.raises(ValueError, match="`g_max`"):
        NandakumarPCM(g_max=0.05)
    with pytest.raises(ValueError, match="`noise`"):
        ExpStepPCM(noise=-1)
