"""Chips from a crossbar map hold its weights, and refuse other models."""

import dataclasses

import keras
import numpy as np
import pytest
from maps import mapped

from snukeras.export import MappedChip
from snukeras.export.crossbar.chip import device_of
from snukeras.export.crossbar.faults import Fault
from snukeras.export.crossbar.targets import load_target
from snukeras.export.errors import BadInputError
from snukeras.layers import SNU
from snukeras.pcm import GenericPCM, HermesPCM, IdealDevice, WanReRAM


def network(seed=0):
    keras.utils.set_random_seed(seed)
    unit = SNU(5, threshold=0.2, recurrent=True, return_sequences=True, name="unit")
    both = keras.layers.Bidirectional(unit, name="both")
    out = keras.layers.Dense(3, bias_initializer="uniform", name="out")
    return keras.Sequential([keras.Input((None, 4)), both, out])


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("scale", ["tensor", "column"])
def test_ideal_devices_give_the_model_back(tmp_path, scale):
    model = network()
    crossbar = mapped(tmp_path / "m", model, scale=scale)
    chip = MappedChip(crossbar, model, IdealDevice())
    assert list(chip.crossbars) == crossbar.matrices
    copy = chip.model(t=3600)
    for a, b in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(
        chip.crossbars["out/kernel"].targets[0], crossbar.conductances("out/kernel")[0], atol=1e-5
    )


@pytest.mark.slow
def test_devices_drift_and_one_seed_is_one_chip(tmp_path):
    model = network()
    crossbar = mapped(tmp_path / "m", model)
    year = [MappedChip(crossbar, model, seed=s).model(3e7).get_weights() for s in (1, 1, 2)]
    np.testing.assert_array_equal(year[0][0], year[1][0])
    assert np.any(year[0][0] != year[2][0])
    assert np.abs(year[0][0]).mean() < 0.9 * np.abs(model.get_weights()[0]).mean()


@pytest.mark.slow
def test_a_map_of_another_model_is_refused(tmp_path):
    model = network()
    crossbar = mapped(tmp_path / "m", model)
    with pytest.raises(BadInputError, match=r"is not that of the model .* other weights"):
        MappedChip(crossbar, network(seed=1))
    chip = MappedChip(crossbar)
    with pytest.raises(BadInputError, match="digital parameters"):
        chip.write(network(seed=1))
    other = keras.Sequential([keras.Input((None, 4)), keras.layers.Dense(3, name="out")])
    with pytest.raises(BadInputError, match="other matrices"):
        chip.write(other)
    with pytest.raises(ValueError, match="Give the Keras model"):
        chip.model()
    chip.write(model)
    chip.write(model, t=3600)


def test_stuck_devices_of_the_map_are_stuck_on_the_chip(tmp_path):
    model = network()
    faults = tuple(Fault(0, line, 0, 3.0) for line in range(256))
    crossbar = mapped(tmp_path / "m", model, pack=True, faults=faults)
    (name,) = {crossbar.matrices[f["matrix"]] for f in crossbar.description["faults"]}
    fault = crossbar.description["faults"][0]
    chip = MappedChip(crossbar, model, GenericPCM(read_noise=0.0), seed=0)
    for t in (0.0, 3e7):
        assert chip.conductances(t)[name][0, fault["row"], fault["column"]] == 3.0


@pytest.mark.parametrize("slices", [(1.0,), (1.0, 0.125)])
def test_a_chip_of_any_device_is_programmed_as_the_map_says(tmp_path, slices):
    """The map was planned with the curves of its target; other devices do not change it."""
    hardware = load_target("pcm14nm-2").replace(g_max=20.7)
    options = {"slices": slices, "programmed_for": 31536e3}
    crossbar = mapped(tmp_path / "m", network(), hardware, **options)
    for device in (IdealDevice(20.7), HermesPCM(2, programming_noise=0.0, drift=0.5, read_noise=0)):
        held = MappedChip(crossbar, device=device).conductances()
        for name in crossbar.matrices:
            np.testing.assert_allclose(held[name], crossbar.programmed(name), atol=1e-4)
            assert np.abs(held[name] - crossbar.conductances(name)).max() > 0.01 * 20.7
    # Nothing is known of these devices after a year, but they can be programmed as for one.
    chip = MappedChip(crossbar, device=WanReRAM(), seed=1)
    chip.weights(t=86400.0)
    with pytest.raises(ValueError, match="two days"):
        chip.weights(t=31536e3)
    description = crossbar.description
    programming = dataclasses.replace(description.programming, device="OtherPCM")
    crossbar.description = dataclasses.replace(description, programming=programming)
    with pytest.raises(BadInputError, match=r"the curves of HermesPCM, .* those of OtherPCM\."):
        MappedChip(crossbar)


def test_devices_of_targets():
    assert isinstance(device_of(load_target("pcm")), GenericPCM)
    device = device_of(load_target("pcm14nm-1"))
    assert isinstance(device, HermesPCM) and device.devices_per_polarity == 1
    assert device_of(load_target("pcm").replace(g_max=10.0)).g_max == 10.0
