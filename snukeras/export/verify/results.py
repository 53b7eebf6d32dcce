"""The results of a verification, as report.json holds them."""

import dataclasses

from snukeras.export.records import Record, optional


@dataclasses.dataclass(frozen=True)
class OutputResult(Record):
    """ONNX Runtime against Keras: the largest difference of one output."""

    max_difference: float
    ok: bool


@dataclasses.dataclass(frozen=True)
class UnitResult(Record):
    """ONNX Runtime against Keras and against float64: one layer of units, or one direction.

    Attributes:
        name: Its name in the graph.
        spiking: Whether it puts out spikes.
        outputs: Number of outputs compared.
        flips: Spikes that differ between the runtimes.
        contradictions: Spikes of either that contradict the float64 potential beyond rounding.
        max_difference: Largest difference of outputs.
        max_potential_difference: Largest difference of ONNX's potentials from float64.
        ok: Whether all potentials, and all soft outputs, lie within their bounds.
    """

    name: str
    spiking: bool
    outputs: int
    flips: int
    contradictions: int
    max_difference: float
    max_potential_difference: float
    ok: bool

    def plus(self, other: "UnitResult") -> "UnitResult":
        """Return the result of this batch and another one."""
        return dataclasses.replace(
            self,
            outputs=self.outputs + other.outputs,
            flips=self.flips + other.flips,
            contradictions=self.contradictions + other.contradictions,
            max_difference=max(self.max_difference, other.max_difference),
            max_potential_difference=max(
                self.max_potential_difference, other.max_potential_difference
            ),
            ok=self.ok and other.ok,
        )


@dataclasses.dataclass(frozen=True)
class OnnxResult(Record):
    """ONNX Runtime against Keras."""

    ok: bool
    outputs: dict[str, OutputResult]
    units: tuple[UnitResult, ...]


@dataclasses.dataclass(frozen=True)
class DifferenceResult(Record):
    """The streaming form against the whole sequence."""

    ok: bool
    max_difference: float


@dataclasses.dataclass(frozen=True)
class RateResult(Record):
    """The mean output of a layer of units, its rate of spikes, before and after int8."""

    name: str
    before: float
    after: float


@dataclasses.dataclass(frozen=True)
class Int8Result(Record):
    """The int8 file against the float file.

    Attributes:
        ok: Whether its outputs are finite and no layer fell silent.
        mode: "dynamic" or "static".
        bytes, share: Its size, and as a share of that of the float file.
        max_difference: Largest difference of the first output.
        rates: By layer of units.
        silent: Layers that spike in the float file alone.
    """

    ok: bool
    mode: str
    bytes: int
    share: float
    max_difference: float
    rates: tuple[RateResult, ...]
    silent: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class MatrixResult(Record):
    """The weights of a matrix rebuilt from the map against those of the model.

    Attributes:
        name, layer, shape: The matrix.
        weights, devices, tiles: Numbers.
        max_weight, rms_weight: Of the model.
        max_error, rms_error: In units of weight, without weights on stuck devices.
        half_level: The largest error that rounding to levels allows; 0 for continuous devices.
        stuck: Number of stuck devices in use.
        ok: Whether every error lies within half a level, or float rounding, but for what was
            clipped.
        clipped: Number of weights that the map was told to clip; None where it was told nothing.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    weights: int
    devices: int
    tiles: int
    levels: int | None
    max_weight: float
    rms_weight: float
    max_error: float
    rms_error: float
    half_level: float
    stuck: int
    ok: bool
    clipped: int | None = optional()

    @property
    def relative_error(self) -> float:
        """The rms error as a share of the rms weight; 0 where all weights are 0."""
        return self.rms_error / self.rms_weight if self.rms_weight else 0.0


@dataclasses.dataclass(frozen=True)
class MapResult(Record):
    """The map against the model.

    Attributes:
        ok: Whether all holds.
        matrices: By matrix.
        absent: Matrices of the map that the model does not have.
        parameters_equal: Whether the digital parameters are those of the model.
        complete: Whether the map has all weights of the model.
        belongs: Whether it names the ONNX file and the weights beside it.
    """

    ok: bool
    matrices: tuple[MatrixResult, ...]
    absent: tuple[str, ...]
    parameters_equal: bool
    complete: bool
    belongs: bool


@dataclasses.dataclass(frozen=True)
class DeviceListResult(Record):
    """The list of devices against the map; `line` is the first that differs, 0 if none does."""

    ok: bool
    devices: int
    line: int


@dataclasses.dataclass(frozen=True)
class NirResult(Record):
    """The NIR graph, stepped by Euler's rule in float64, against Keras.

    Attributes:
        ok: Whether its parameters are the model's, no spike contradicts its potential beyond
            rounding, and soft outputs agree.
        checked: False where the library nir is not installed, so that nothing was compared.
        outputs, flips: Spikes compared, and those that differ from Keras's.
        problem: What differs, in words, or "".
    """

    ok: bool
    checked: bool
    outputs: int
    flips: int
    problem: str


@dataclasses.dataclass(frozen=True)
class CResult(Record):
    """The C, compiled and run on this machine, against Keras and the integer reference.

    Attributes:
        ok: Whether all holds.
        checked: False where there is no C compiler, so that nothing was run.
        max_difference: Largest difference of float32 outputs from Keras.
        outputs, flips: Spikes compared, and those of float32 that differ from Keras's.
        integers: Whether int8 equals its integer reference bit for bit; None without int8.
        integer_difference: Largest difference of int8 outputs from Keras.
        problem: What differs, in words, or "".
    """

    ok: bool
    checked: bool
    max_difference: float
    outputs: int
    flips: int
    integers: bool | None
    integer_difference: float | None
    problem: str


@dataclasses.dataclass(frozen=True)
class WebResult(Record):
    """The page, its ONNX file run as a browser runs it, against Keras.

    Attributes:
        ok: Whether all holds.
        samples, steps: What was compared.
        max_difference: Largest difference of outputs.
        outputs, flips: Spikes compared, and those that differ within rounding.
        problem: What differs, in words, or "".
    """

    ok: bool
    samples: int
    steps: int
    max_difference: float
    outputs: int
    flips: int
    problem: str


@dataclasses.dataclass(frozen=True)
class MetricResult(Record):
    """The metric of the samples, by "keras", "onnx", "int8", "c", "c_int8" and "map"."""

    name: str
    title: str
    unit: str
    lower_is_better: bool
    values: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Verification(Record):
    """All comparisons of an export.

    Attributes:
        ok: Whether all holds.
        samples, batches: What was compared on.
        onnx, streaming, map, device_list, nir: The comparisons; None where there is no such file.
        metric: The metric of the samples; None where it cannot be computed.
        metric_left_out: Why there is no metric, or None.
        reload: Why `snukeras-export verify` cannot load the model later, or None.
        int8: The int8 file against the float file, or None.
        c: The C against Keras; None where there is none.
        web: The page against Keras; None where there is none.
    """

    ok: bool
    samples: str
    batches: int
    onnx: OnnxResult
    streaming: DifferenceResult | None
    map: MapResult | None
    device_list: DeviceListResult | None
    nir: NirResult | None
    metric: MetricResult | None
    metric_left_out: str | None
    reload: str | None = None
    int8: Int8Result | None = None
    c: CResult | None = None
    web: WebResult | None = None

    def failures(self) -> list[str]:
        """Return what is wrong, in words."""
        found = [
            f"ONNX output {name} differs by {output.max_difference:.3g}"
            for name, output in self.onnx.outputs.items()
            if not output.ok
        ]
        for unit in self.onnx.units:
            if unit.contradictions:
                found.append(f"{unit.contradictions} spikes of {unit.name} differ beyond rounding")
            if not unit.ok:
                found.append(
                    f"{unit.name} differs by {unit.max_difference:.3g} in its outputs and "
                    f"{unit.max_potential_difference:.3g} in its potentials"
                )
        if self.streaming is not None and not self.streaming.ok:
            found.append(f"the streaming form differs by {self.streaming.max_difference:.3g}")
        if self.int8 is not None and not self.int8.ok:
            silent = ", ".join(self.int8.silent)
            found.append(
                f"layers fall silent in int8: {silent}" if silent else "int8 outputs are not finite"
            )
        if self.map is not None:
            found += _map_failures(self.map)
        if self.device_list is not None and not self.device_list.ok:
            found.append(
                f"the list of devices differs from the map in line {self.device_list.line}"
            )
        if self.nir is not None and not self.nir.ok:
            found.append(f"the NIR graph differs: {self.nir.problem}")
        if self.c is not None and not self.c.ok:
            found.append(f"the C differs: {self.c.problem}")
        if self.web is not None and not self.web.ok:
            found.append(f"the page differs: {self.web.problem}")
        return found


def _map_failures(result: MapResult) -> list[str]:
    found = [f"the model has no matrix {name}" for name in result.absent]
    found += [f"weights of {m.name} differ from the map" for m in result.matrices if not m.ok]
    if not (result.parameters_equal and result.complete):
        found.append("digital parameters differ from the map")
    if not result.belongs:
        found.append("the map belongs to another ONNX file or other weights")
    return found
