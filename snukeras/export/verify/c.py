"""Prove the C of an export: compiled and run here, against Keras and the integer reference."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from snukeras.export.c import quantise, reference
from snukeras.export.c.compiler import CompileError, Program, find
from snukeras.export.c.files import Made, make, stepped
from snukeras.export.c.plan import Tensor, Units
from snukeras.export.folder import C_HEADER, C_INT8, C_INT8_HEADER, C_MAIN, C
from snukeras.export.network import Network
from snukeras.export.samples import Samples
from snukeras.export.verify.results import CResult
from snukeras.export.verify.running import runner
from snukeras.export.verify.spikes import contradictions, potentials_of

_ABSOLUTE, _RELATIVE = 1e-5, 1e-4


def compare_c(network: Network, folder: Path, samples: Samples, title: str) -> CResult:
    """Compile the C and compare it on the samples.

    The C is written anew from the model, and compiled if the files of the folder are the same: no
    code of somebody else's is run.

    Args:
        network: The network.
        folder: The folder of the export.
        samples: Its samples.
        title: The network's name.
    """
    made = make(network, samples, title)
    for name in (C, C_HEADER, C_INT8, C_INT8_HEADER, C_MAIN):
        path = folder / name
        text = path.read_text(encoding="utf-8") if path.is_file() else None
        if text != made.files.get(name):
            problem = f"{name} is not what this version of snukeras writes of the model"
            return CResult(False, True, 0.0, 0, 0, None, None, problem)
    if find() is None:
        return CResult(True, False, 0.0, 0, 0, None, None, "there is no C compiler")
    try:
        return _compare(network, made, samples)
    except CompileError as error:
        return CResult(False, True, 0.0, 0, 0, None, None, str(error))


def _compare(network: Network, made: Made, samples: Samples) -> CResult:
    plan = made.plan
    traced = [tensor for units in plan.units for tensor in (units.source, units.target)]
    keys = sorted({tensor.key for tensor in (*plan.outputs, *traced)})
    run = runner(network.topology, network.model, keys)
    worst, outputs, flips = 0.0, 0, 0
    integer_worst: float | None = None
    with tempfile.TemporaryDirectory() as place:
        program = Program(
            made.float32.code, (made.float32.header, C_HEADER), plan, "float", traced, place
        )
        second = None
        if made.int8 is not None:
            second = Program(
                made.int8.code, (made.int8.header, C_INT8_HEADER), plan, "int16_t", traced, place
            )
        for feeds in samples.batches:
            values, given = run(feeds), stepped(plan, feeds)
            got = program.run(given)
            clean = np.ones(len(feeds[0]), dtype=bool)
            pairs = iter(got[len(plan.outputs) :])
            for units in plan.units:
                found = _compare_units(units, next(pairs), next(pairs), values)
                outputs, flips = outputs + found[0], flips + int(found[1].sum())
                clean &= found[1] == 0
                if found[2]:
                    problem = f"{found[2]} outputs of {units.call} differ beyond rounding"
                    return CResult(False, True, worst, outputs, flips, None, None, problem)
            off, ok = _difference(plan.outputs, got, values, clean)
            worst = max(worst, off)
            if not ok:
                problem = f"outputs differ from Keras by {off:.3g}"
                return CResult(False, True, worst, outputs, flips, None, None, problem)
            if second is None or made.integers is None:
                continue
            bits = made.integers.bits
            fixed = [
                quantise.fixed(feed, bits[tensor.label])
                for feed, tensor in zip(given, plan.inputs, strict=True)
            ]
            there = second.run(fixed)
            wanted = reference.run(made.integers, fixed, traced)
            if not all(np.array_equal(a, b) for a, b in zip(there, wanted, strict=True)):
                problem = "int8 differs from its integer reference"
                return CResult(False, True, worst, outputs, flips, False, None, problem)
            real = [
                part / 2.0 ** bits[tensor.label]
                for part, tensor in zip(there, plan.outputs, strict=False)
            ]
            off, _ = _difference(plan.outputs, real, values, clean)
            integer_worst = max(off, integer_worst or 0.0)
    integers = None if made.integers is None else True
    return CResult(True, True, worst, outputs, flips, integers, integer_worst, "")


def _difference(
    tensors: tuple[Tensor, ...], got: list[np.ndarray], values: dict[Any, np.ndarray], clean: Any
) -> tuple[float, bool]:
    """Return the largest difference of outputs, and whether those of clean samples agree."""
    worst, ok = 0.0, True
    for tensor, found in zip(tensors, got, strict=False):
        expected = values[tensor.key]
        steps = found if tensor.over_time else found[:, -1]
        same = steps.reshape(expected.shape)
        worst = max(worst, float(np.abs(same - expected).max(initial=0.0)))
        ok = ok and bool(np.allclose(same[clean], expected[clean], _RELATIVE, _ABSOLUTE))
    return worst, ok


def _compare_units(
    units: Units, x: np.ndarray, y: np.ndarray, values: dict[Any, np.ndarray]
) -> tuple[int, np.ndarray, int]:
    """Compare a layer of units on its own input.

    Returns:
        How many spikes there are to compare, how many differ by sample, and how many outputs
        contradict the float64 potential beyond rounding.
    """
    cell = units.layer.cell
    maps = x.reshape(*x.shape[:2], *units.source.shape)
    s, bound = potentials_of(cell, maps, y)
    expected = _all_steps(units, values).reshape(y.shape)
    if units.spiking:
        different = (expected != y).sum(axis=(1, 2))
        wrong = contradictions(cell, s, bound, y)
        if different.any():
            given = values[units.source.key].reshape(maps.shape)
            wrong += contradictions(cell, *potentials_of(cell, given, expected), expected)
        return y.size, different, wrong
    threshold = np.resize(np.asarray(cell.threshold_values(), "float64"), s.shape[-1])
    off = np.abs(y - 1.0 / (1.0 + np.exp(threshold - s)))
    # The sigmoid's slope is a quarter at most.
    return 0, np.zeros(len(y), int), int((off > bound / 4 + _ABSOLUTE / 10).sum())


def _all_steps(units: Units, values: dict[Any, np.ndarray]) -> np.ndarray:
    """Return what the Keras layer puts out at every step."""
    if units.layer.return_sequences:
        return values[units.target.key]
    config = {**units.layer.get_config(), "return_sequences": True, "stateful": False}
    twin = type(units.layer).from_config(config)
    x = values[units.source.key]
    twin.build(x.shape)
    twin.set_weights(units.layer.get_weights())
    return keras.ops.convert_to_numpy(twin(keras.ops.convert_to_tensor(x)))
