"""Program and verify: what it reaches, what it reports, and the simulated chip behind it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.pcm import (
    Chip,
    DifferentialPair,
    GenericPCM,
    NandakumarPCM,
    SimulatedHardware,
    Tile,
    analog,
)

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


@pytest.mark.slow
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


def test_what_programming_takes_is_counted():
    class Counting(SimulatedHardware):
        def __init__(self):
            super().__init__(seed=1)
            self.asked = [np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int)]

        def pulse(self, tile, counts):
            self.asked[0] += counts
            super().pulse(tile, counts)

        def reset(self, tile, where):
            self.asked[1] += where
            super().reset(tile, where)

    hardware = Counting()
    chip = Chip({"w": np.random.default_rng(0).normal(size=(4, 4))}, hardware=hardware)
    first = chip.programming["w/0/0"]
    np.testing.assert_array_equal(first.pulses, hardware.asked[0])
    np.testing.assert_array_equal(first.resets, hardware.asked[1])
    assert first.seconds == pytest.approx(hardware.time) and first.resets.min() >= 1
    chip.program()
    for counts, asked in zip(hardware.wear("w/0/0"), hardware.asked, strict=True):
        np.testing.assert_array_equal(counts, asked)
    with pytest.raises(ValueError, match="name a tile that was programmed"):
        hardware.wear("other")


def test_hardware_that_reads_no_numbers():
    class Broken(SimulatedHardware):
        def readings(self, tile, count):
            return super().readings(tile, count) * np.nan

    with pytest.raises(ValueError, match=r"must read as finite uS. Received: 144 of 144 values"):
        Chip({"a": np.eye(3)}, hardware=Broken(seed=1))


def test_hardware_that_answers_in_another_shape():
    class Broken(SimulatedHardware):
        def read(self, tile):
            return np.zeros((2, 1))

    with pytest.raises(ValueError, match=r"must read as \(2, 3, 3\)"):
        Chip({"a": np.eye(3)}, GenericPCM(), hardware=Broken())


@pytest.mark.slow
def test_the_chip_multiplies():
    matrix = np.random.default_rng(2).normal(size=(12, 5)).astype("float32")
    hardware = SimulatedHardware(seed=2)
    chip = Chip({"w": matrix}, hardware=hardware, tile_size=(8, 3))
    x = np.random.default_rng(3).normal(size=(2, 200, 12)).astype("float32")
    asked = []
    own = hardware.mvm
    hardware.mvm = lambda tile, vectors: (asked.append((tile, vectors.shape)), own(tile, vectors))[
        1
    ]
    y = chip.matmul("w", tf.convert_to_tensor(x))
    assert asked == [
        ("w/0/0", (400, 8)),
        ("w/0/1", (400, 8)),
        ("w/1/0", (400, 4)),
        ("w/1/1", (400, 4)),
    ]
    # The mean of many readings is what the chip multiplies by; each vector has noise of its own.
    held = np.mean([chip.weights()["w"] for _ in range(100)], axis=0)
    error = np.asarray(y) - x @ held
    assert 0.0 < np.abs(error).mean() < 0.1 * np.abs(x @ held).mean()
    same = np.repeat(x[:1, :1], 50, axis=1)
    assert len(np.unique(np.asarray(chip.matmul("w", same))[..., 0])) == 50


def test_gradients_on_hardware_are_those_of_the_targets():
    matrix = np.random.default_rng(2).normal(size=(6, 5)).astype("float32")
    chip = Chip({"w": matrix}, hardware=SimulatedHardware(seed=2))
    x = tf.Variable(np.ones((3, 6), "float32"))
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(chip.matmul("w", tf.convert_to_tensor(x)))
    np.testing.assert_allclose(tape.gradient(y, x), np.tile(matrix.sum(axis=1), (3, 1)), rtol=1e-4)
    with pytest.raises(ValueError, match="no part in compiled functions"):
        tf.function(lambda x: chip.matmul("w", x))(tf.ones((3, 6)))


@pytest.mark.slow
def test_a_network_on_tiles_on_hardware():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="d")])
    net = analog(model, Tile(8, 8, None, None))
    chip = Chip(net, hardware=SimulatedHardware(seed=1))
    held = chip.model()
    assert np.all(np.asarray(held.tiles[0].variance) >= 0)
    assert np.any(np.asarray(held.tiles[0].variance) > 0)
    x = np.random.default_rng(3).normal(size=(40, 6)).astype("float32")
    exact = np.asarray(model(x))
    assert np.abs(np.asarray(held(x)) - exact).mean() < 0.25 * np.abs(exact).mean()
