"""The C files of an export: made from a network and its samples, and what they take of a device."""

import dataclasses
import platform
from collections.abc import Sequence

import numpy as np

from snukeras.export.c import calibrate, compiler, example, floats, integers, plan, quantise
from snukeras.export.c.floats import Source
from snukeras.export.c.plan import Coding, Plan
from snukeras.export.c.quantise import Integers, NoIntegersError
from snukeras.export.folder import (
    C_EXPECTED,
    C_HEADER,
    C_INPUT,
    C_INT8,
    C_INT8_HEADER,
    C_MAIN,
    C,
)
from snukeras.export.network import Network
from snukeras.export.records import Record
from snukeras.export.samples import Samples
from snukeras.export.verify.running import runner


@dataclasses.dataclass(frozen=True)
class CPart(Record):
    """One form of the step: bytes of constants, of RAM, and of code (None without a compiler)."""

    name: str
    constants: int
    ram: int
    code: int | None


@dataclasses.dataclass(frozen=True)
class CEntry(Record):
    """What the C takes of a device.

    Attributes:
        name: Before every name in the files.
        float32, int8: The two forms.
        int8_left_out: Why there is no int8, or None.
        measured_on: Processor and option of the compiler that the code was measured with.
    """

    name: str
    float32: CPart
    int8: CPart | None
    int8_left_out: str | None
    measured_on: str | None


@dataclasses.dataclass(frozen=True)
class Made:
    """The C of a network: plan, integers (or why there are none), sources, and texts by file."""

    plan: Plan
    integers: Integers | None
    left_out: str | None
    float32: Source
    int8: Source | None
    files: dict[str, str]


def make(network: Network, samples: Samples, title: str) -> Made:
    """Write the C of a network; the same network, samples and title give the same texts.

    Args:
        network: The network.
        samples: Its input, from which int8 learns how large its numbers are.
        title: The network's name.

    Raises:
        UnsupportedLayersError: Layers have no form in C; all are named.
    """
    found = plan.read(network, title)
    held = left_out = second = None
    source = floats.write(found)
    files = {C: source.code, C_HEADER: source.header}
    try:
        held = quantise.quantise(found, calibrate.ranges(found, network, samples))
        second = integers.write(held)
        files |= {C_INT8: second.code, C_INT8_HEADER: second.header}
    except NoIntegersError as error:
        left_out = f"{error}."
    files[C_MAIN] = example.write(found, held is not None)
    files |= _sequence(network, found, samples)
    return Made(found, held, left_out, source, second, files)


def _sequence(network: Network, found: Plan, samples: Samples) -> dict[str, str]:
    """Return the first sample as text, and what Keras makes of it."""
    feeds = samples.batches[0]
    run = runner(network.topology, network.model, sorted({t.key for t in found.outputs}))
    values = run(feeds)
    given = np.concatenate([feed[0].reshape(len(feed[0]), -1) for feed in stepped(found, feeds)], 1)
    outputs = [values[tensor.key][0] for tensor in found.outputs]
    over_time = all(tensor.over_time for tensor in found.outputs)
    rows = [
        (output if over_time else output[-1:] if tensor.over_time else output[None]).reshape(
            len(given) if over_time else 1, -1
        )
        for output, tensor in zip(outputs, found.outputs, strict=True)
    ]
    return {C_INPUT: _text(given), C_EXPECTED: _text(np.concatenate(rows, axis=1))}


def _text(rows: np.ndarray) -> str:
    return "".join(",".join(f"{value:.9g}" for value in row) + "\n" for row in rows)


def stepped(found: Plan, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return inputs with a step on axis 1; what has no time is given anew at every step."""
    steps = 1
    for operation in found.operations:
        if isinstance(operation, Coding):
            steps = max(steps, len(operation.thresholds))
    for feed, tensor in zip(feeds, found.inputs, strict=True):
        steps = feed.shape[1] if tensor.over_time else steps
    return [
        feed if tensor.over_time else np.repeat(feed[:, None], steps, axis=1)
        for feed, tensor in zip(feeds, found.inputs, strict=True)
    ]


def describe(made: Made) -> CEntry:
    """Say what the C takes of a device; the code is measured where there is a compiler."""
    measured = None

    def part(name: str, source: Source, header: str) -> CPart:
        nonlocal measured
        try:
            sizes = compiler.measure(source.code, (source.header, header), made.plan)
        except compiler.CompileError:
            return CPart(name, source.weights, source.ram, None)
        measured = f"{platform.machine()}, -Os"
        return CPart(name, sizes.constants, sizes.ram, sizes.code)

    return CEntry(
        made.plan.name,
        part("float32", made.float32, C_HEADER),
        None if made.int8 is None else part("int8", made.int8, C_INT8_HEADER),
        made.left_out,
        measured,
    )
