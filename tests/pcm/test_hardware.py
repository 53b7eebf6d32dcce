"""Program and verify: what it reaches, what it reports, and the simulated chip behind it."""

import numpy as np
import pytest

from snukeras.pcm import Chip, DifferentialPair, GenericPCM, NandakumarPCM, SimulatedHardware

YEAR = 31536e3


@pytest.mark.slow
def test_simulated_hardware_programs_within_its_tolerance():
    hardware = SimulatedHardware(NandakumarPCM(20.0, seed=1))
    targets = np.random.default_rng(0).uniform(0, 8, (2, 40, 40)).astype("float32")
    hardware.program("tile", targets)
    error = hardware.read("tile") - targets
    assert np.mean(np.abs(error) < 2.5) > 0.97
    first = hardware.read("tile").mean()
    hardware.wait(YEAR)
    assert hardware.read("tile").mean() < 0.75 * first


@pytest.fixture(scope="module")
def programmed():
    """A 64 x 64 matrix on simulated hardware."""
    matrix = np.random.default_rng(1).normal(size=(64, 64)).clip(-10 / 3, 10 / 3)
    return matrix, Chip({"w": matrix}, hardware=SimulatedHardware(seed=1))


@pytest.mark.slow
def test_program_and_verify_beats_writing_blindly(programmed):
    matrix, chip = programmed

    def error(weights):
        return np.sqrt(np.mean((weights - matrix) ** 2) / np.mean(matrix**2))

    # A reading alone has an error of some 0.06.
    assert error(chip.weights()["w"]) < 0.09
    blind = Chip({"w": matrix}, GenericPCM(), seed=1)
    assert error(chip.weights()["w"]) < error(blind.weights()["w"])
    assert chip.crossbars["w"].pair.g_max == pytest.approx(10.2, abs=0.2)


def test_programming_reports_the_pairs_that_it_missed(programmed):
    _, chip = programmed
    (report,) = chip.programming.values()
    assert list(chip.programming) == ["w/0/0"]
    assert report.held.shape == (2, 64, 64) and report.missed.shape == (64, 64)
    assert report.missed.mean() < 0.02 and report.iterations <= 100
    np.testing.assert_array_equal(report.missed, np.abs(report.error) > report.tolerance)
    targets = chip.crossbars["w"].targets
    np.testing.assert_allclose(
        report.error, (report.held[0] - report.held[1]) - (targets[0] - targets[1]), atol=1e-5
    )


def test_a_range_that_devices_do_not_reach_is_said():
    class Weak(SimulatedHardware):
        def program(self, tile, targets, iterations=10):
            return super().program(tile, targets, iterations)

    with pytest.warns(
        UserWarning, match=r"of 64 pairs of 'w' did not come within .* smaller g_max"
    ):
        chip = Chip({"w": np.full((8, 8), 1.0)}, hardware=Weak(seed=1), pair=DifferentialPair(25.0))
    assert chip.programming["w/0/0"].missed.mean() > 0.5


def test_simulated_hardware_counts_pulses_and_refuses_strangers():
    hardware = SimulatedHardware(NandakumarPCM(noise=0.0))
    with pytest.raises(ValueError, match="must name a tile"):
        hardware.read("tile")
    hardware.reset("tile", np.ones((2, 1, 3), bool))
    hardware.pulse("tile", np.array([[[0, 1, 3]], [[0, 0, 2]]]))
    np.testing.assert_array_equal(hardware._tiles["tile"].pulses, [[[0, 1, 3]], [[0, 0, 2]]])
    with pytest.raises(ValueError, match="has shape"):
        hardware.pulse("tile", np.ones((2, 2, 2), int))


def test_hardware_that_answers_in_another_shape():
    class Broken(SimulatedHardware):
        def read(self, tile):
            return np.zeros((2, 1))

    with pytest.raises(ValueError, match=r"must read as \(2, 3, 3\)"):
        Chip({"a": np.eye(3)}, GenericPCM(), hardware=Broken())
