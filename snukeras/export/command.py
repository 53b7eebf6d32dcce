"""Command line: snukeras-export MODEL --target pcm, and snukeras-export verify|readback."""

import argparse
import contextlib
import json
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from snukeras import _completion, _terminal
from snukeras._files import JsonObject
from snukeras.export.errors import BadInputError, ExportError

if TYPE_CHECKING:
    import keras

    from snukeras.export.crossbar.map import CrossbarMap
    from snukeras.export.crossbar.targets import Target, TargetChanges
    from snukeras.export.nir.rating import NirRating
    from snukeras.export.samples import Samples
    from snukeras.pcm import Tile

Report = Callable[[str], None]

_CODES = """\
exit codes:
  0  done, and all that was written is verified
  1  verification failed: something differs from the Keras model or was changed
  2  bad input: arguments, model file, target, damaged map
  3  the model has layers that cannot be exported (all are named)
  4  the output exists (use --overwrite)
  5  a file could not be written or read
  130  interrupted; nothing half-written is left
"""
_EPILOG = f"""\
also:
  snukeras-export verify DIR           repeat the verification of an export
  snukeras-export readback MAP CSV     rebuild weights from measured conductances

{_CODES}"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {"verify": _verify, "readback": _read_back}
    handlers = {}
    try:
        if arguments and arguments[0] in commands:
            parser = _verify_parser() if arguments[0] == "verify" else _readback_parser()
            options, run = parser.parse_args(arguments[1:]), commands[arguments[0]]
        else:
            options, run = _parser().parse_args(arguments), _export
        with contextlib.suppress(ValueError):  # signals belong to the main thread
            handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, _interrupt)
        with _quiet():
            return run(options)
    except SystemExit as stop:  # argparse
        return int(stop.code or 0)
    except ExportError as error:
        _complain(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        _complain("Interrupted.", "Nothing half-written was left.")
        return 130
    except MemoryError:
        _complain("There is not enough memory for this.", "")
        return 5
    except ModuleNotFoundError as error:
        _complain(
            f"The package {error.name} is not installed, and an export needs it.",
            "`pip install snukeras` brings all that is needed.",
        )
        return 5
    except OSError as error:
        _complain(f"{error.filename or 'A file'}: {error.strerror or error}.", "")
        return 5
    except RecursionError:
        _complain("The input is nested too deeply.", "")
        return 2
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _complain(message: str, hint: str) -> None:
    """Print an error in one line, and its hint in another."""
    message, hint = (_terminal.plain(" ".join(text.split())) for text in (message, hint))
    print(f"snukeras-export: {message}", file=sys.stderr)
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInputError(f"{message}.", f"See `{self.prog} --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="snukeras-export",
        description="Export a Keras model as ONNX and as a crossbar map, and verify both.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="a .keras or .nir file, or zoo:NAME")
    add(
        "--target",
        default="pcm",
        metavar="NAME",
        help="onnx, c (C99) or web (a page), without map; pcm (default); PATH.json; --list-targets",
    )
    add("--output", metavar="DIR", help="folder to make (default NAME-TARGET)")
    add("--overwrite", action="store_true", help="replace an earlier export")
    add("--json", action="store_true", help="print the report as JSON")
    _add_crossbar(parser)
    _add_forecast(parser)
    _add_more(parser)
    return parser


def _add_crossbar(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("crossbar").add_argument
    add(
        "--tile",
        type=_tile,
        metavar="ROWSxCOLUMNS|KIND",
        help="cross-points of a tile (of pcm: devices; default 256x256); or a kind of tile "
        "(generic8, PATH.json): its size, and the forecast computes with its converters",
    )
    add(
        "--clip",
        type=_clip,
        metavar="K",
        help="cut weights beyond K standard deviations of their column, or what costs a product "
        "least (best), before they are mapped",
    )
    add(
        "--slices",
        type=_numbers("significances such as 1,0.125"),
        metavar="S,S,...",
        help="several pairs a weight, by significance: 1,0.125 is a most and a least significant "
        "one, on a plane of tiles each",
    )
    add(
        "--programmed-for",
        type=float,
        metavar="SECONDS",
        help="program devices so that they hold the weights after this time",
    )
    add("--g-max", type=float, metavar="uS", help="largest conductance")
    add("--g-min", type=float, metavar="uS", help="smallest conductance")
    add("--levels", type=int, metavar="N", help="conductance levels per polarity, ends included")
    add(
        "--pairs",
        type=int,
        metavar="N",
        help="pairs of devices in parallel that hold a weight (g_max is that of all together)",
    )
    add(
        "--scale",
        choices=("tensor", "column"),
        default="column",
        help="one scale of conductance per column (default) or per matrix",
    )
    add("--pack", action="store_true", help="let small matrices share tiles")
    add("--embedding", action="store_true", help="map Embedding tables too")
    add("--faults", metavar="FILE", help="JSON list of stuck devices to work around")
    add("--csv", action="store_true", help="also write one line per device")


def _add_forecast(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("forecast").add_argument
    add(
        "--chips", type=int, metavar="N", help="chips to simulate (default 3; 1 of a large network)"
    )
    add(
        "--times",
        type=_numbers("seconds such as 25,3600,86400"),
        metavar="S,S,...",
        help="seconds after programming (default 25,3600,86400,31536000)",
    )
    add("--seed", type=int, default=0, help="seed of chips and of random input (default 0)")
    add(
        "--samples",
        metavar="FILE",
        help=".npz with input for the comparison; with an array targets, for the metric as well",
    )
    add(
        "--metric",
        choices=("frame_nll", "cross_entropy", "accuracy", "perplexity"),
        help="of the targets (default: accuracy for integers, else frame_nll)",
    )


def _add_more(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("more").add_argument
    add("--streaming", action="store_true", help="also write a one-step ONNX file")
    add(
        "--int8",
        nargs="?",
        const="dynamic",
        choices=("dynamic", "static"),
        help="also write an ONNX file with int8 weights; ranges of inputs found at each run "
        "(dynamic, the default) or on the samples (static)",
    )
    add(
        "--web-runtime",
        metavar="PATH",
        help="where --target web gets onnxruntime-web from: its archive of npm, or a folder "
        "(default: SNUKERAS_WEB_RUNTIME, else the cache, else a download)",
    )
    add("--nir", action="store_true", help="also write model.nir (needs --dt and the library nir)")
    add(
        "--vectors",
        action="store_true",
        help="also write the integers of converters and neurons (of a network on tiles)",
    )
    add(
        "--dt",
        type=float,
        metavar="SECONDS",
        help="time of one step: for --nir, or of an .nir MODEL",
    )
    add(
        "--writer",
        metavar="NAME",
        help="library that wrote an .nir MODEL (default: told by its numbers)",
    )
    add("--reset", metavar="HOW", help="subtract, zero or none: how neurons of an .nir MODEL reset")
    add("--list-layers", action="store_true", help="list the layers known")
    add("--list-targets", action="store_true", help="list the targets known")
    add("--version", action="store_true", help="print the version")
    _completion.add(
        parser, lambda: {"verify": _verify_parser(), "readback": _readback_parser()}, _models
    )


def _models() -> dict[str, list[str]]:
    """Return what the argument MODEL may be beside a file, for shells."""
    from snukeras.zoo import presets

    return {"model": [f"zoo:{name}" for name in presets.list()]}


def _verify_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="snukeras-export verify",
        description="Repeat the verification of an export: checksums, map, ONNX, weights.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", help="the folder that snukeras-export made")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _readback_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="snukeras-export readback",
        description="Rebuild the weights from measured conductances.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("map", metavar="MAP", help="crossbar.snumap of an export")
    parser.add_argument("csv", metavar="CSV", help="columns tile, word_line, bit_line, measured_uS")
    parser.add_argument("--output", metavar="DIR", default="readback", help="folder to make")
    parser.add_argument(
        "--model", metavar="FILE", help=".keras file (default: model.keras beside the map)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _tile(text: str) -> tuple[int, int] | str:
    match = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", text)
    if match is not None:
        return int(match[1]), int(match[2])
    if not text.endswith(".json") and not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", text):
        raise argparse.ArgumentTypeError(
            f"expected ROWSxCOLUMNS such as 256x256, or a kind of tile, not {text!r}"
        )
    return text


def _clip(text: str) -> float | str:
    try:
        return text if text == "best" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or best, not {text!r}") from None


def _numbers(expected: str) -> Callable[[str], tuple[float, ...]]:
    """Return a parser of numbers with commas between them."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            return tuple(float(part) for part in text.split(","))
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}") from None

    return parse


def _export(options: argparse.Namespace) -> int:
    for asked, answer in _ANSWERS.items():
        if getattr(options, asked):
            return answer()
    _check(options)
    hardware = _hardware(options)
    label = options.target if hardware is None else hardware.name
    output = Path(options.output or f"{_name(options.model)}-{label}")
    from snukeras.export.folder import check_output

    # Check the output folder first: loading TensorFlow takes seconds.
    check_output(output, options.overwrite)
    with _terminal.status(options.json) as progress:
        if options.target == "web":
            from snukeras.export.web.runtime import find

            progress("looking for onnxruntime-web")
            find(options.web_runtime)
        _load_tensorflow(progress)
        from snukeras.export.crossbar.faults import read_faults
        from snukeras.export.exporter import export
        from snukeras.export.report.simulation import TIMES
        from snukeras.export.report.terminal import show

        faults = read_faults(options.faults) if options.faults else ()
        _register()
        opened = _open(options, progress)
        report = export(
            opened.model,
            output,
            target=hardware or options.target,
            scale=options.scale,
            seed=options.seed,
            pack=options.pack,
            embedding=options.embedding,
            faults=faults,
            csv=options.csv,
            streaming=options.streaming,
            int8=options.int8,
            nir_dt=options.dt if options.nir else None,
            vectors=options.vectors,
            tile=_kind(options, opened.model),
            clip=options.clip,
            slices=options.slices or (1.0,),
            programmed_for=options.programmed_for,
            web_runtime=options.web_runtime,
            samples=_samples(options, opened.model, (opened.metrics or {}).get("task")),
            chips=options.chips,
            times=options.times or TIMES,
            overwrite=options.overwrite,
            name=opened.name,
            source=opened.source,
            metrics=opened.metrics,
            progress=progress,
        )
    if options.json:
        print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        opened.show_rating()
        show(report, output)
    if not report.verification.ok:
        found = "; ".join(report.verification.failures())
        _complain(f"The export is not verified: {found}.", "Do not use it; see report.json.")
        return 1
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse options that do not fit together."""
    from snukeras.export.crossbar.targets import WITHOUT_MAP

    if options.model is None:
        raise BadInputError(
            "MODEL is missing.", "Give a .keras or .nir file or zoo:NAME, or see --help."
        )
    if options.nir and options.dt is None:
        raise BadInputError(
            "--nir needs --dt, the seconds that one step takes.", "Give --dt 1e-3 or such."
        )
    read = options.model.endswith(".nir")
    if options.dt is not None and not (options.nir or read):
        raise BadInputError("--dt is for NIR alone.", "Add --nir, or leave --dt out.")
    for name in ("writer", "reset"):
        if getattr(options, name) is not None and not read:
            raise BadInputError(f"--{name} is for a MODEL in an .nir file.", "Leave it out.")
    if options.metric and not options.samples:
        raise BadInputError("--metric is for --samples with targets.", "Add --samples FILE.npz.")
    if options.web_runtime is not None and options.target != "web":
        raise BadInputError("--web-runtime is for --target web.", "Leave it out.")
    if options.target in WITHOUT_MAP:
        sizes = ("tile", "g_max", "g_min", "levels", "pairs", "clip", "slices", "programmed_for")
        for name in (*sizes, "faults", "csv", "pack", "chips", "times"):
            if getattr(options, name) is not None and getattr(options, name) is not False:
                raise BadInputError(
                    f"--{name.replace('_', '-')} is for targets with a crossbar map.",
                    "Leave it out, or choose another --target.",
                )
    if not 0 <= options.seed < 2**63:
        raise BadInputError(
            f"--seed must be an integer from 0 to {2**63 - 1}. Received: {options.seed}."
        )


def _hardware(options: argparse.Namespace) -> "Target | None":
    """Return the target with the options that change it; None for ONNX alone."""
    from snukeras.export.crossbar.targets import WITHOUT_MAP, load_target

    if options.target in WITHOUT_MAP:
        return None
    changes: TargetChanges = {}
    if isinstance(options.tile, tuple):
        changes |= {"rows": options.tile[0], "columns": options.tile[1]}
    if options.g_max is not None:
        changes["g_max"] = options.g_max
    if options.g_min is not None:
        changes["g_min"] = options.g_min
    if options.levels is not None:
        changes["levels"] = options.levels
    if options.pairs is not None:
        changes["devices_per_polarity"] = options.pairs
    return load_target(options.target).replace(**changes)


def _kind(options: argparse.Namespace, model: "keras.Model") -> "str | Tile | None":
    """Return the kind of tile: that of the option, else that of a network on tiles."""
    from snukeras.export.crossbar.targets import WITHOUT_MAP
    from snukeras.pcm import AnalogNetwork

    if isinstance(options.tile, str):
        return options.tile
    asked = options.tile is not None or options.target in WITHOUT_MAP
    if asked or not isinstance(model, AnalogNetwork):
        return None
    return model.tile


def _samples(
    options: argparse.Namespace, model: "keras.Model", task: str | None
) -> "Samples | None":
    """Return the user's samples, else data of the task where it is on this machine, else chorales.

    Args:
        options: Those of the command.
        model: The model.
        task: The task of a preset, None for other models.

    Returns:
        None where there are none of these; chorales are for networks that play them.
    """
    from snukeras.export.network import Network
    from snukeras.export.samples import Samples, samples_from_file

    network = Network.read(model)
    if options.samples:
        return samples_from_file(options.samples, network, options.metric)
    # What a page plays has names, which the songs of the data set have not.
    if task is not None and not (options.target == "web" and network.plays_chorales):
        from snukeras.zoo.tasks import TASKS

        part = TASKS[task].part() if task in TASKS else None
        if part is not None:
            return Samples.part(part)
    return Samples.chorales(network)


def _verify(options: argparse.Namespace) -> int:
    with _terminal.status(options.json) as progress:
        _load_tensorflow(progress)
        from snukeras.export.report.terminal import show_verification
        from snukeras.export.verify.folder import verify_folder

        _register()
        verification = verify_folder(options.folder, progress)
    if options.json:
        print(json.dumps(verification.to_dict(), indent=2, ensure_ascii=False))
    else:
        show_verification(verification)
    return 0


def _read_back(options: argparse.Namespace) -> int:
    output = Path(options.output)
    from snukeras.export.folder import SOURCE, beside, check_output

    check_output(output, False)
    with _terminal.status(options.json) as progress:
        _load_tensorflow(progress)
        from snukeras._files import write_arrays
        from snukeras.export.crossbar.load import load_map
        from snukeras.export.crossbar.readback import read_back
        from snukeras.export.loading import load_model
        from snukeras.export.report.terminal import show_read_back
        from snukeras.network.weights import rebuilt_model

        _register()
        crossbar = load_map(options.map)
        result = read_back(crossbar, options.csv)
        beside_map = Path(options.map).parent / SOURCE
        path = options.model or (beside_map if beside_map.is_file() else None)
        with beside(output, False) as folder:
            text = json.dumps(result.report.to_dict(), indent=2, allow_nan=False)
            (folder / "readback.json").write_text(text + "\n", encoding="utf-8")
            write_arrays(folder / "weights.npz", result.weights)
            if path is not None:
                progress("rebuilding the Keras model")
                model = load_model(path)
                _check_model(model, crossbar)
                rebuilt_model(model, result.weights).save(folder / "measured.keras")
    if options.json:
        print(json.dumps(result.report.to_dict(), indent=2))
    else:
        show_read_back(result.report, output)
    return 0


def _check_model(model: "keras.Model", crossbar: "CrossbarMap") -> None:
    """Refuse a model that the weights of a map do not fit into."""
    from snukeras.network.weights import collect

    shapes = {weight.name: weight.values.shape for weight in collect(model)}
    for name, values in crossbar.weights().items():
        if shapes.get(name) != values.shape:
            raise BadInputError(
                f"The model {model.name!r} is not that of the map {crossbar.path}: it has no "
                f"{name} of the shape {values.shape}.",
                "Give the model.keras of the same export with --model.",
            )


def _name(model: str) -> str:
    """Return a name for the default folder that cannot lead out of the current one."""
    name = model[4:] if model.startswith("zoo:") else Path(model).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".") or "model"


class _Opened(NamedTuple):
    """A model as the command was given it.

    Attributes:
        model: The model.
        name: What the report calls it.
        source: Its .keras file, where it has one.
        metrics: Its figures, where known.
        rating: What became of the nodes of its NIR file, where it came from one.
    """

    model: "keras.Model"
    name: str
    source: Path | None = None
    metrics: JsonObject | None = None
    rating: "NirRating | None" = None

    def show_rating(self) -> None:
        """Print what became of the nodes of an NIR file; nothing for other models."""
        if self.rating is not None:
            print("\n".join(map(_terminal.plain, f"{self.rating}\n".split("\n"))))


def _open(options: argparse.Namespace, progress: Report) -> _Opened:
    """Load the model: a .keras or an .nir file, or a model of the zoo."""
    path = Path(options.model)
    if options.model.startswith("zoo:"):
        return _of_zoo(options.model, progress)
    if path.suffix != ".nir":
        from snukeras.export.loading import load_model

        progress(f"loading {path}")
        return _Opened(load_model(path), path.name, path)
    from snukeras.export.nir.read import read_rated, whole

    progress(f"reading {path}")
    model, rating = read_rated(path, writer=options.writer, dt=options.dt, reset=options.reset)
    return _Opened(whole(model, rating), path.name, rating=rating)


def _of_zoo(model: str, progress: Report) -> _Opened:
    import snukeras.zoo

    progress(f"loading {model}")
    try:
        network, known = snukeras.zoo.load(model[4:]), snukeras.zoo.info(model[4:])
    except (ValueError, OSError) as error:
        raise BadInputError(str(error), "See `snukeras-zoo list`.") from error
    metrics: JsonObject = {
        "task": known["task"],
        "metric": known["metric"],
        "unit": known["unit"],
        "valid": known["valid"],
        "test": known["test"],
    }
    return _Opened(network, model, None, metrics)


def _version() -> int:
    from snukeras import __version__

    print(__version__)
    return 0


def _list_targets() -> int:
    from snukeras.export.crossbar.targets import available_targets, load_target

    print("onnx: ONNX only, no crossbar map")
    print("c: one step as plain C99, float32 and int8, beside ONNX; no crossbar map")
    print("web: a page that runs the network in a browser, beside ONNX; no crossbar map")
    for name in available_targets():
        print(f"{name}: {load_target(name).title}")
    return 0


def _list_layers() -> int:
    _load_tensorflow(lambda text: None)
    from snukeras.export.c.plan import ACTIVATIONS
    from snukeras.export.c.plan import own_layers as in_c
    from snukeras.export.c.quantise import ACTIVATIONS as WHOLE
    from snukeras.export.onnx.activations import supported
    from snukeras.export.onnx.build import own_layers
    from snukeras.network.matrices import mapped_layers

    print("Layers with a form of their own in ONNX:")
    print("  " + ", ".join(own_layers()))
    print("State activations of SNU and SSNU:")
    print("  " + ", ".join(supported()))
    print("Every other Keras layer is converted by tf2onnx, if it is installed (snukeras[tf2onnx])")
    print("and can; half-precision layers are refused.")
    print("Layers with a form in C (--target c):")
    print("  " + ", ".join(in_c()))
    print("Activations in C, float32; and in int8:")
    print("  " + ", ".join(ACTIVATIONS))
    print("  " + ", ".join(WHOLE))
    print("Matrices on tiles (Embedding with --embedding only):")
    print("  " + ", ".join(mapped_layers()))
    return 0


# Options that are answered without a model.
_ANSWERS = {"version": _version, "list_targets": _list_targets, "list_layers": _list_layers}


def _load_tensorflow(progress: Report) -> None:
    """Import TensorFlow without the notices that its C++ parts print on loading.

    On another backend of Keras it may be missing.
    """
    progress("loading TensorFlow and Keras")
    with _terminal.quiet_stderr():
        with contextlib.suppress(ImportError):
            import tensorflow  # noqa: F401
        with contextlib.suppress(ImportError):  # an extra, for layers without a form of our own
            import tf2onnx  # noqa: F401


def _register() -> None:
    """Load all modules whose classes a saved model may name."""
    import snukeras

    for name in snukeras.__all__:
        if name not in ("datasets", "export", "zoo"):
            getattr(snukeras, name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the notices of TensorFlow and Keras out of the terminal."""
    # Exports are compared on the CPU, so that they come out alike everywhere.
    for name, value in (("TF_CPP_MIN_LOG_LEVEL", "3"), ("CUDA_VISIBLE_DEVICES", "-1")):
        os.environ.setdefault(name, value)
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
