"""Export a model to a folder: ONNX, crossbar map, verification, report."""

import contextlib
import dataclasses
import importlib.metadata
import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import onnx

from snukeras import __version__, _arguments
from snukeras._files import JsonObject
from snukeras.export.c.files import CEntry, describe, make
from snukeras.export.crossbar.description import OnnxFile, Source
from snukeras.export.crossbar.device_list import write_device_list
from snukeras.export.crossbar.faults import Fault
from snukeras.export.crossbar.load import load_map
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.crossbar.targets import WITHOUT_MAP, Target, load_target
from snukeras.export.crossbar.writer import Clip, MapOptions, write_map
from snukeras.export.errors import BadInputError, ExportWarning
from snukeras.export.folder import (
    CHECKSUMS,
    CSV,
    MAP,
    NIR,
    ONNX,
    PAGE,
    REPORT,
    SAMPLES,
    SOURCE,
    STREAMING,
    VECTORS,
    Progress,
    beside,
    check_output,
    sha256_of,
)
from snukeras.export.loading import reload_problem
from snukeras.export.network import Network
from snukeras.export.nir.write import NirFile, write_nir
from snukeras.export.onnx.build import build
from snukeras.export.onnx.int8 import MODES
from snukeras.export.report.contents import (
    FORMAT,
    CallEntry,
    End,
    FileEntry,
    MapEntry,
    OnnxEntry,
    Options,
    Report,
)
from snukeras.export.report.forecast import Forecast, Simulated, forecast
from snukeras.export.report.page import page
from snukeras.export.report.risks import risks
from snukeras.export.report.simulation import TIMES
from snukeras.export.report.tiled import OnTiles, sized
from snukeras.export.samples import Samples
from snukeras.export.vectors import checked, write_vectors
from snukeras.export.verify.folder import verify
from snukeras.export.verify.int8 import write_int8
from snukeras.export.verify.results import Verification
from snukeras.export.web.files import WebEntry
from snukeras.export.web.files import describe as describe_page
from snukeras.export.web.files import make as make_page
from snukeras.export.web.runtime import VERSION as RUNTIME_VERSION
from snukeras.export.web.runtime import Runtime, find
from snukeras.pcm import AnalogNetwork, DifferentialPair, Tile, get_tile
from snukeras.pcm.programming import check_slices

MAX_SEED = 2**63 - 1
MAX_SLICES = 16


@dataclasses.dataclass(frozen=True)
class _Job:
    """One export: the network, what is asked of it, and the folder that is being filled."""

    network: Network
    folder: Path
    target: Target | None
    options: MapOptions
    csv: bool
    streaming: bool
    int8: str | None
    nir_dt: float | None
    tiled: AnalogNetwork | None
    on_tiles: OnTiles | None
    c: bool
    web: Runtime | None
    simulated: Simulated
    name: str
    source: Path | None
    metrics: JsonObject | None
    progress: Progress


def export(
    model: keras.Model,
    output: str | Path,
    *,
    target: str | Target = "pcm",
    scale: str = "column",
    seed: int = 0,
    pack: bool = False,
    embedding: bool = False,
    faults: Sequence[Fault] = (),
    csv: bool = False,
    streaming: bool = False,
    int8: str | None = None,
    nir_dt: float | None = None,
    vectors: bool = False,
    tile: str | Path | Tile | None = None,
    clip: Clip = None,
    slices: Sequence[float] = (1.0,),
    programmed_for: float | None = None,
    samples: Samples | None = None,
    web_runtime: str | Path | None = None,
    chips: int | None = None,
    times: Sequence[float] = TIMES,
    overwrite: bool = False,
    name: str | None = None,
    source: str | Path | None = None,
    metrics: JsonObject | None = None,
    progress: Progress = lambda text: None,
) -> Report:
    """Export a model into a new folder, verify what was written, and return the report.

    Args:
        model: Sequential or functional model of float32 policy.
        output: Folder to make; everything is written beside it first and renamed when complete.
        target: "onnx" (no crossbar map), "c" (also one step as C99), "web" (also a page that runs
            the network in a browser), a target's name or file, or a `Target`.
        scale: "column" or "tensor": one scale of conductance per column or per matrix. Matrices
            on the levels of a PCMConstraint have the range of the constraint instead.
        seed: Seed of the random input, where there are no samples, and of the first chip.
        pack: Let small blocks share tiles.
        embedding: Map Embedding tables as well.
        faults: Stuck devices.
        csv: Also write one line per device.
        streaming: Also write the one-step form of the ONNX graph.
        int8: Also write the ONNX graph with int8 weights: "dynamic" finds the ranges of inputs at
            each run, "static" on the samples.
        nir_dt: Seconds that a step takes, to write the network as NIR too, which needs the library
            nir; None writes none.
        vectors: Also write what converters and neurons compute for the samples; the model is a
            calibrated network on tiles (`snukeras.pcm.analog`) then.
        tile: Kind of tile, as for `snukeras.pcm.analog`: tiles have its size, and the forecast
            computes the network with its converters, whose ranges the samples set. None: tiles are
            those of the target, and the forecast has its bits in the products of matrices alone.
            A calibrated network on tiles brings its kind and ranges, where the target is a name.
        clip: Where weights are cut before they are mapped: a number of standard deviations, or
            "best" (see `snukeras.pcm.DifferentialPair`). A network on tiles brings its own.
        slices: Significances of the pairs that hold a weight together, the largest first, as for
            `snukeras.pcm.Crossbar`: a plane of tiles for each.
        programmed_for: Devices are programmed so that they hold the weights after so many seconds,
            as there.
        samples: Input for the comparison, and what a page plays; random by default, chorales on the
            page of a network that plays them.
        web_runtime: Where a page gets onnxruntime-web from: the archive of npm, or a folder that
            holds it. Default: what the variable SNUKERAS_WEB_RUNTIME names, else the cache, else a
            download into it.
        chips: How many chips the forecast simulates; None for 3, or 1 of a large network.
        times: Seconds after programming at which it reads them.
        overwrite: Replace an earlier export at `output`.
        name: Name of the network in the report; the model's by default.
        source: The .keras file the model came from; it is copied into the folder.
        metrics: Known figures of the network (names, numbers, texts), kept in the metadata of the
            ONNX files and in the report.
        progress: Called with what is being done.

    Returns:
        The content of report.json. `report.verification.ok` says whether all holds.

    Raises:
        UnsupportedLayersError: Layers have no ONNX or NIR form; all are named.
        BadInputError: The model or an argument cannot be used.
        OutputExistsError: The output exists.

    Warns:
        ExportWarning: `snukeras-export verify` cannot load the model in a process of its own.
    """
    hardware = _target(target)
    on_tiles = _on_tiles(model, tile, target, hardware)
    if on_tiles is not None and hardware is not None:
        hardware = sized(hardware, on_tiles.tile)
    clip = _clip(model, clip)
    slices, programmed_for = _programming(hardware, slices, programmed_for)
    output = Path(output)
    check_output(output, overwrite)
    if scale not in ("tensor", "column"):
        raise BadInputError(f'scale must be "tensor" or "column". Received: {scale!r}.')
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise BadInputError(f"seed must be an integer from 0 to {MAX_SEED}. Received: {seed!r}.")
    if int8 is not None and int8 not in MODES:
        raise BadInputError(f"int8 must be one of {MODES} or None. Received: {int8!r}.")
    runtime = _runtime(target, web_runtime)
    simulated = Simulated(chips, tuple(float(t) for t in times), seed)
    tiled = checked(model) if vectors else None
    progress("reading the network")
    network = Network.read(model, embedding)
    with beside(output, overwrite) as folder:
        job = _Job(
            network=network,
            folder=folder,
            target=hardware,
            options=MapOptions(scale, pack, tuple(faults), seed, clip, slices, programmed_for),
            csv=csv,
            streaming=streaming,
            int8=int8,
            nir_dt=nir_dt,
            tiled=tiled,
            on_tiles=on_tiles,
            c=target == "c",
            web=runtime,
            simulated=simulated,
            name=name or model.name,
            source=None if source is None else Path(source),
            metrics=metrics,
            progress=progress,
        )
        if samples is None and runtime is not None:
            samples = Samples.chorales(network)
        report = _run(job, samples or Samples.random(network, seed))
    if report.verification.reload is not None:
        warnings.warn(
            f"snukeras-export verify cannot load the model of {output}: "
            f"{report.verification.reload}.",
            ExportWarning,
            stacklevel=2,
        )
    return report


def _target(target: str | Target) -> Target | None:
    if isinstance(target, Target):
        return target
    return None if target in WITHOUT_MAP else load_target(target)


def _runtime(target: str | Target, place: str | Path | None) -> Runtime | None:
    """Return what a page runs with, where one is asked for."""
    if target == "web":
        return find(place)
    if place is not None:
        raise BadInputError(
            f'web_runtime is for target="web". Received: target={target!r}.', "Leave it out."
        )
    return None


def _on_tiles(
    model: keras.Model, tile: str | Path | Tile | None, target: str | Target, known: Target | None
) -> OnTiles | None:
    """Return with which converters the forecast computes.

    Raises:
        BadInputError: An unknown kind of tile, or one for an export without a map.
    """
    source = None
    if isinstance(model, AnalogNetwork) and not any(p.uncalibrated for p in model.tiles):
        source = model
    if tile is None:
        if known is None or isinstance(target, Target) or source is None:
            return None
        return OnTiles(source.tile, source)
    if known is None:
        raise BadInputError(
            f"A kind of tile is for targets with a crossbar map. Received: tile={tile!r}.",
            "Leave it out, or choose another target.",
        )
    try:
        kind = get_tile(tile)
    except ValueError as error:
        raise BadInputError(f"{error}") from error
    return OnTiles(kind, source if source is not None and source.tile == kind else None)


def _clip(model: keras.Model, clip: Clip) -> Clip:
    """Return where weights are cut, checked; that of a network on tiles by default."""
    if clip is None and isinstance(model, AnalogNetwork) and model.pair is not None:
        return model.pair.clip
    try:
        return DifferentialPair(clip=clip).clip
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{error}") from error


def _programming(
    target: Target | None, slices: Sequence[float], programmed_for: float | None
) -> tuple[tuple[float, ...], float | None]:
    """Return slices and time of programming, checked."""
    try:
        checked = check_slices(slices)
        if programmed_for is not None:
            programmed_for = _arguments.number("programmed_for", programmed_for, minimum=0.0)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{error}") from error
    if len(checked) > MAX_SLICES:
        raise BadInputError(f"There may be {MAX_SLICES} slices at most. Received: {len(checked)}.")
    if target is None and (len(checked) > 1 or programmed_for is not None):
        raise BadInputError(
            "Slices and a time of programming are for targets with a crossbar map.",
            "Leave them out, or choose another target.",
        )
    # One significance alone weighs whatever it is.
    return checked if len(checked) > 1 else (1.0,), programmed_for


def _run(job: _Job, samples: Samples) -> Report:
    """Fill the folder."""
    network, folder, progress = job.network, job.folder, job.progress
    origin = Source(
        name=job.name,
        sha256=None if job.source is None else sha256_of(job.source),
        weights_sha256=network.digest,
    )
    if job.source is None:
        network.model.save(folder / SOURCE)
    else:
        shutil.copyfile(job.source, folder / SOURCE)
    # C and page come first: they refuse more than ONNX does.
    c = _write_c(job, samples) if job.c else None
    web = _write_web(job, job.web, origin, samples) if job.web else None
    nir, described = _write_graphs(job, origin)
    if job.int8 is not None:
        progress("quantising the ONNX graph")
        write_int8(folder, job.int8, samples)
    crossbar = None if job.target is None else _write_map(job, job.target, origin)
    samples.save(folder / SAMPLES)
    vectors = None
    if job.tiled is not None:
        progress("writing vectors")
        vectors = write_vectors(folder / VECTORS, job.tiled, samples.batches)
    verification, twin = verify(network, folder, samples, progress, crossbar, job.name)
    if samples.asked and verification.metric is None:
        raise BadInputError(
            f"The metric cannot be measured on {samples.kind}: {verification.metric_left_out}.",
            "Give other targets, or another --metric.",
        )
    if job.source is None:
        problem = reload_problem(network.model, folder / SOURCE)
        verification = dataclasses.replace(verification, reload=problem)
    found = None
    if crossbar is not None:
        found = forecast(
            network, crossbar, samples, verification, job.simulated, twin, progress, job.on_tiles
        )
        said = risks(crossbar, verification, found, network.digital_kernels)
        found = dataclasses.replace(found, risks=said)
    progress("writing the report")
    report = _report(job, origin, nir, c, web, described, crossbar, found, verification)
    report = dataclasses.replace(report, vectors=vectors)
    (folder / PAGE).write_text(page(report, crossbar), encoding="utf-8")
    report = dataclasses.replace(
        report,
        files={
            path.name: FileEntry(sha256_of(path), path.stat().st_size)
            for path in sorted(folder.iterdir())
        },
    )
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")
    lines = [f"{sha256_of(path)}  {path.name}" for path in sorted(folder.iterdir())]
    (folder / CHECKSUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return report


def _write_c(job: _Job, samples: Samples) -> CEntry:
    """Write one step of the network as C, and the sequence that it can be tried on."""
    job.progress("writing C")
    made = make(job.network, samples, job.name)
    for name, text in made.files.items():
        (job.folder / name).write_text(text, encoding="utf-8")
    return describe(made)


def _write_web(job: _Job, runtime: Runtime, origin: Source, samples: Samples) -> WebEntry:
    """Write the page, and what it runs with."""
    job.progress("writing the page")
    made = make_page(job.network, samples, job.name, _metadata(job, origin))
    for name, data in {**made.files(), **runtime}.items():
        (job.folder / name).write_bytes(data)
    return describe_page(made, RUNTIME_VERSION)


def _metadata(job: _Job, origin: Source) -> dict[str, str]:
    """Return the texts in the ONNX files."""
    metadata = {
        "snukeras.version": __version__,
        "snukeras.source": origin.name,
        "snukeras.source_sha256": origin.sha256 or "",
        "snukeras.weights_sha256": origin.weights_sha256,
    }
    if job.metrics:
        metadata["snukeras.metrics"] = json.dumps(job.metrics, allow_nan=False)
    return metadata


def _write_graphs(job: _Job, origin: Source) -> tuple[NirFile | None, OnnxEntry]:
    """Write the NIR graph, the ONNX graph and its streaming form."""
    network, folder, progress = job.network, job.folder, job.progress
    metadata = _metadata(job, origin)
    nir = None
    if job.nir_dt is not None:
        progress("building the NIR graph")
        nir = write_nir(network, folder / NIR, job.nir_dt)
    progress("building the ONNX graph")
    name = network.model.name
    proto = build(network.topology, name, metadata=metadata)
    (folder / ONNX).write_bytes(proto.SerializeToString(deterministic=True))
    described = _describe_onnx(proto)
    del proto
    if job.streaming:
        progress("building the streaming form")
        step = build(network.topology, name, streaming=True, metadata=metadata)
        (folder / STREAMING).write_bytes(step.SerializeToString(deterministic=True))
    return nir, described


def _write_map(job: _Job, target: Target, origin: Source) -> CrossbarMap:
    """Write the map, read it back with all checks, and write the list of devices."""
    write_map(
        job.folder / MAP,
        job.network.weights,
        target,
        job.options,
        package=__version__,
        source=origin,
        onnx=OnnxFile(ONNX, sha256_of(job.folder / ONNX)),
        progress=lambda text: job.progress(f"mapping {text}"),
    )
    job.progress("checking the crossbar map")
    crossbar = load_map(job.folder / MAP)
    if job.csv:
        job.progress("writing the list of devices")
        write_device_list(crossbar, job.folder / CSV)
    return crossbar


def _report(
    job: _Job,
    origin: Source,
    nir: NirFile | None,
    c: CEntry | None,
    web: WebEntry | None,
    described: OnnxEntry,
    crossbar: CrossbarMap | None,
    found: Forecast | None,
    verification: Verification,
) -> Report:
    return Report(
        format=FORMAT,
        version=1,
        snukeras=__version__,
        packages=_packages(),
        source=origin,
        metrics=job.metrics,
        parameters=int(job.network.model.count_params()),
        options=Options(
            target=_label(job),
            scale=job.options.scale,
            seed=job.options.seed,
            pack=job.options.pack,
            embedding=job.network.embedding,
            streaming=job.streaming,
            int8=job.int8,
            faults=len(job.options.faults),
            clip=job.options.clip,
            slices=job.options.slices if len(job.options.slices) > 1 else None,
            programmed_for=job.options.programmed_for,
        ),
        network=_describe_network(job.network),
        onnx=described,
        nir=nir,
        c=c,
        web=web,
        map=None if crossbar is None else _describe_map(crossbar),
        forecast=found,
        verification=verification,
        files={},
    )


def _label(job: _Job) -> str:
    """Return what was asked for as the target."""
    if job.target is not None:
        return job.target.name
    return "c" if job.c else "web" if job.web else "onnx"


def _packages() -> dict[str, str]:
    names = ("keras", "tensorflow", "numpy", "onnx", "tf2onnx", "onnxruntime")
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _describe_network(network: Network) -> tuple[CallEntry, ...]:
    """Return the calls of the network in order."""
    plan = network.topology
    given = {ref.key: name for name, ref in plan.inputs}
    return tuple(
        CallEntry(
            name=call.name,
            layer_class=type(call.op).__name__,
            inputs=tuple(given.get(ref.key, ref.key[0]) for ref in call.inputs),
            parameters=call.op.count_params() if hasattr(call.op, "count_params") else 0,
        )
        for call in plan.calls
    )


def _describe_onnx(proto: onnx.ModelProto) -> OnnxEntry:
    def ends(values: Sequence[onnx.ValueInfoProto]) -> tuple[End, ...]:
        return tuple(
            End(
                value.name,
                tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
            )
            for value in values
        )

    return OnnxEntry(
        file=ONNX,
        opset=next(entry.version for entry in proto.opset_import if entry.domain == ""),
        ir_version=proto.ir_version,
        nodes=len(proto.graph.node),
        inputs=ends(proto.graph.input),
        outputs=ends(proto.graph.output),
    )


def _describe_map(crossbar: CrossbarMap) -> MapEntry:
    description = crossbar.description
    tiles = description.tiles
    return MapEntry(
        file=MAP,
        target=description.target,
        **crossbar.totals,
        adders=len(description.adders),
        utilisation=sum(t.devices_used for t in tiles) / sum(t.devices for t in tiles),
        tile_utilisation=tuple(t.devices_used / t.devices for t in tiles),
        faults=description.faults,
        programming=description.programming,
    )
