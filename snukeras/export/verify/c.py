"""Prove the C of an export: compiled and run here, against Keras and the integer reference."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from snukeras.export.c import quantise, reference
from snukeras.export.c.compiler import CompileError, Program, find
from snukeras.export.c.files import Made, make, stepped
from snukeras.export.c.floats import Source
from snukeras.export.c.plan import Neurons, Tensor, Units
from snukeras.export.folder import C_HEADER, C_INT8, C_INT8_HEADER, C_MAIN, C
from snukeras.export.network import Network
from snukeras.export.samples import Samples
from snukeras.export.verify.results import CResult
from snukeras.export.verify.running import runner
from snukeras.export.verify.spikes import contradictions, potentials_of

_ABSOLUTE, _RELATIVE = 1e-5, 1e-4


def compare_c(
    network: Network, folder: Path, samples: Samples, title: str
) -> tuple[CResult, dict[str, list[np.ndarray]]]:
    """Compile the C and compare it on the samples.

    The C is written anew from the model, and compiled if the files of the folder are the same: no
    code of somebody else's is run.

    Args:
        network: The network.
        folder: The folder of the export.
        samples: Its samples.
        title: The network's name.

    Returns:
        The comparison, and the first outputs by batch of what was run: "c", "c_int8".
    """
    made = make(network, samples, title)
    for name in (C, C_HEADER, C_INT8, C_INT8_HEADER, C_MAIN):
        path = folder / name
        text = path.read_text(encoding="utf-8") if path.is_file() else None
        if text != made.files.get(name):
            problem = f"{name} is not what this version of snukeras writes of the model"
            return CResult(False, True, 0.0, 0, 0, None, None, problem), {}
    if find() is None:
        return CResult(True, False, 0.0, 0, 0, None, None, "there is no C compiler"), {}
    try:
        with tempfile.TemporaryDirectory() as place:
            return _Comparison(network, made, place).result(samples)
    except CompileError as error:
        return CResult(False, True, 0.0, 0, 0, None, None, str(error)), {}


class _Comparison:
    """The programs of a network's C, and what was found of them so far.

    Args:
        network: The network.
        made: Its C.
        place: Folder for what is compiled.

    Raises:
        CompileError: The compiler refuses the code.
    """

    def __init__(self, network: Network, made: Made, place: str) -> None:
        self.plan, self.integers = made.plan, made.integers
        self.traced = [each for units in self.plan.units for each in (units.source, units.target)]
        keys = sorted({tensor.key for tensor in (*self.plan.outputs, *self.traced)})
        self.run = runner(network.topology, network.model, keys)

        def program(source: Source, header: str, kind: str) -> Program:
            return Program(
                source.code, (source.header, header), self.plan, kind, self.traced, place
            )

        self.program = program(made.float32, C_HEADER, "float")
        self.second = None if made.int8 is None else program(made.int8, C_INT8_HEADER, "int16_t")
        self.worst, self.outputs, self.flips = 0.0, 0, 0
        self.integer_worst: float | None = None
        self.first: dict[str, list[np.ndarray]] = {}

    def result(self, samples: Samples) -> tuple[CResult, dict[str, list[np.ndarray]]]:
        """Compare all batches, up to the first that differs."""
        for feeds in samples.batches:
            values, given = self.run(feeds), stepped(self.plan, feeds)
            problem, clean = self.floats(given, values)
            if problem:
                return self.said(False, None, problem), {}
            if self.second is not None and not self.whole(given, values, clean):
                return self.said(False, False, "int8 differs from its integer reference"), {}
        return self.said(True, None if self.second is None else True, ""), self.first

    def said(self, ok: bool, integers: bool | None, problem: str) -> CResult:
        """Return what was found so far."""
        worst = self.integer_worst if integers else None
        return CResult(ok, True, self.worst, self.outputs, self.flips, integers, worst, problem)

    def floats(
        self, given: list[np.ndarray], values: dict[Any, np.ndarray]
    ) -> tuple[str, np.ndarray]:
        """Compare a batch in float32; return what differs, and which samples have no flip."""
        got = self.program.run(given)
        clean = np.ones(len(given[0]), dtype=bool)
        pairs = iter(got[len(self.plan.outputs) :])
        for units in self.plan.units:
            found = _compare_units(units, next(pairs), next(pairs), values)
            self.outputs, self.flips = self.outputs + found[0], self.flips + int(found[1].sum())
            clean &= found[1] == 0
            if found[2]:
                return f"{found[2]} outputs of {units.call} differ beyond rounding", clean
        off, ok = _difference(self.plan.outputs, got, values, clean)
        self.worst = max(self.worst, off)
        self.keep("c", got[0], values)
        return ("" if ok else f"outputs differ from Keras by {off:.3g}"), clean

    def whole(
        self, given: list[np.ndarray], values: dict[Any, np.ndarray], clean: np.ndarray
    ) -> bool:
        """Run a batch in integers; return whether it equals the integer reference."""
        assert self.second is not None and self.integers is not None
        bits, plan = self.integers.bits, self.plan
        fixed = [
            quantise.fixed(feed, bits[tensor.label])
            for feed, tensor in zip(given, plan.inputs, strict=True)
        ]
        there = self.second.run(fixed)
        wanted = reference.run(self.integers, fixed, self.traced)
        real = [
            part / 2.0 ** bits[tensor.label]
            for part, tensor in zip(there, plan.outputs, strict=False)
        ]
        off, _ = _difference(plan.outputs, real, values, clean)
        self.integer_worst = max(off, self.integer_worst or 0.0)
        self.keep("c_int8", real[0], values)
        return all(np.array_equal(a, b) for a, b in zip(there, wanted, strict=True))

    def keep(self, form: str, found: np.ndarray, values: dict[Any, np.ndarray]) -> None:
        """Keep the first output of a batch, in the shape of Keras's."""
        first = self.plan.outputs[0]
        shape = values[first.key].shape
        self.first.setdefault(form, []).append(_in_shape(first, found, shape))


def _in_shape(tensor: Tensor, found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return what the C put out at every step as the Keras model puts it out."""
    return (found if tensor.over_time else found[:, -1]).reshape(shape)


def _difference(
    tensors: tuple[Tensor, ...], got: list[np.ndarray], values: dict[Any, np.ndarray], clean: Any
) -> tuple[float, bool]:
    """Return the largest difference of outputs, and whether those of clean samples agree."""
    worst, ok = 0.0, True
    for tensor, found in zip(tensors, got, strict=False):
        expected = values[tensor.key]
        same = _in_shape(tensor, found, expected.shape)
        worst = max(worst, float(np.abs(same - expected).max(initial=0.0)))
        ok = ok and bool(np.allclose(same[clean], expected[clean], _RELATIVE, _ABSOLUTE))
    return worst, ok


def _compare_units(
    units: Units | Neurons, x: np.ndarray, y: np.ndarray, values: dict[Any, np.ndarray]
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
    if cell.spiking:
        different = (expected != y).sum(axis=(1, 2))
        wrong = contradictions(cell, s, bound, y)
        if different.any():
            given = values[units.source.key].reshape(maps.shape)
            wrong += contradictions(cell, *potentials_of(cell, given, expected), expected)
        return y.size, different, wrong
    if isinstance(units, Neurons):
        wrong = np.abs(y - s) > bound + _RELATIVE * np.abs(s) + _ABSOLUTE / 10
        return 0, np.zeros(len(y), int), int(wrong.sum())
    threshold = np.resize(np.asarray(cell.threshold_values(), "float64"), s.shape[-1])
    off = np.abs(y - 1.0 / (1.0 + np.exp(threshold - s)))
    # The sigmoid's slope is a quarter at most.
    return 0, np.zeros(len(y), int), int((off > bound / 4 + _ABSOLUTE / 10).sum())


def _all_steps(units: Units | Neurons, values: dict[Any, np.ndarray]) -> np.ndarray:
    """Return what the Keras layer puts out at every step."""
    if units.layer.return_sequences:
        return values[units.target.key]
    config = {**units.layer.get_config(), "return_sequences": True, "stateful": False}
    twin = type(units.layer).from_config(config)
    x = values[units.source.key]
    twin.build(x.shape)
    twin.set_weights(units.layer.get_weights())
    return keras.ops.convert_to_numpy(twin(keras.ops.convert_to_tensor(x)))
