"""The command `python -m benchmark`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark import measure, report, tables
from benchmark.contestants import ON_GPU, choose
from benchmark.networks import LARGE, NETWORKS, WORKS, tiny

_EPILOG = """\
Every contestant trains and runs the same networks on the same data. All are warmed up, and then
take turns in short bursts; the median of the bursts counts. Ratios refer to torch LSTM where torch
is installed, else to keras LSTM. The floor is the time of the matrix products that a step of
spiking units cannot do without, measured in the same run by the fastest engine there is.
Libraries that are not installed are left out. The processor is measured; --device gpu
measures a GPU, with a larger network beside the others.

exit codes: 0 done; 1 a contestant of this package or of Keras failed; 2 wrong usage;
130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        if options.table:
            results = report.load(options.table)
            print(report.markdown(results), end="")
            if options.plot:
                report.plot(results, options.plot)
            return 0
        results = _measure(options)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    report.show(results)
    if options.output:
        usual = tables.GPU if options.device == "gpu" else tables.FILE
        report.save(usual if options.output is True else options.output, results)
    if options.plot:
        try:
            report.plot(results, options.plot)
        except (ValueError, ImportError) as error:
            parser.error(str(error))
    failed = [f for part in results.values() for f in part.get("failures", ())]
    return int(any(f["contestant"].startswith(("snukeras", "keras")) for f in failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark",
        description="Measure training and inference of spiking networks, here and elsewhere.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--scaling", action="store_true", help="measure the cost over steps, units and batch")
    add("--memory", action="store_true", help="measure the memory of training")
    add("--quick", action="store_true", help="miniature networks, to see that all runs")
    add(
        "--contestants",
        nargs="+",
        metavar="PATTERN",
        help="only these, such as 'snukeras *' 'keras LSTM*' (default: all that are installed)",
    )
    add("--profile", action="store_true", help="measure what a step of inference is made of")
    names = [network.name for network in (*NETWORKS, LARGE)]
    add("--networks", nargs="+", choices=names, help="only these networks")
    add("--works", nargs="+", choices=WORKS, default=WORKS, help="only training or inference")
    add(
        "--threads",
        nargs="+",
        choices=("one", "all"),
        help="threads to run with (default: one and all; --quick: all)",
    )
    add("--device", choices=("cpu", "gpu"), default="cpu", help="default: %(default)s")
    add("--optimizer", choices=tuple(measure.RATES), default="sgd", help="default: %(default)s")
    add("--rounds", type=_positive(int), help="bursts of each contestant (default: 5; --quick: 2)")
    add("--burst", type=_positive(float), metavar="S", help="seconds of a burst (default: 0.5)")
    add(
        "--budget",
        type=_positive(float),
        default=600.0,
        metavar="S",
        help="seconds that --scaling may take (default: %(default)g)",
    )
    add(
        "--output",
        nargs="?",
        type=Path,
        const=True,
        metavar="FILE.json",
        help="write the results; without FILE to benchmark/results/benchmark.json of the checkout, "
        "of a GPU to gpu.json there",
    )
    add("--plot", type=Path, metavar="FILE.png", help="draw the results (needs snukeras[plot])")
    add(
        "--table",
        type=Path,
        metavar="FILE.json",
        help="measure nothing; print, and with --plot draw, the results of a file",
    )
    return parser


def _positive(kind: type) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what is asked for, and tell on one line of the terminal what is going on."""
    from rich.console import Console

    quick, gpu = options.quick, options.device == "gpu"
    if gpu and (options.scaling or options.memory or options.profile or options.threads):
        raise ValueError(
            "Option --device gpu measures speeds alone: leave --scaling, --memory, --profile and "
            "--threads out."
        )
    rounds = options.rounds or (2 if quick else 5)
    burst = options.burst or (0.01 if quick else 0.5)
    console = Console(stderr=True)
    results: dict[str, Any] = {}
    with console.status("") as status:
        networks = [
            network
            for network in (*NETWORKS, LARGE)
            if (network.name in options.networks if options.networks else gpu or network != LARGE)
        ]
        if not options.scaling and not options.memory and not options.profile:
            contestants = choose(options.contestants or (ON_GPU if gpu else None))
            if not contestants:
                raise ValueError("None of these contestants is installed.")
            results["speed"] = measure.speed(
                contestants,
                [tiny(network) for network in networks] if quick else networks,
                options.works,
                options.threads or (("all",) if quick else ("one", "all")),
                rounds,
                burst,
                options.optimizer,
                progress=status.update,
                device=options.device,
                anyway=quick,
            )
        if options.scaling:
            results["scaling"] = measure.scaling(
                {axis: sizes[: 2 if quick else None] for axis, sizes in measure.SCALES.items()},
                options.works,
                rounds,
                burst,
                options.budget,
                progress=status.update,
            )
        if options.memory:
            steps = (100, 200) if quick else measure.MEMORY_STEPS
            results["memory"] = measure.memory(steps, progress=status.update)
        if options.profile:
            results["profile"] = measure.profile(
                [tiny(network) for network in networks] if quick else networks,
                options.threads or (("all",) if quick else ("one", "all")),
                rounds,
                burst,
                progress=status.update,
            )
    return results


if __name__ == "__main__":
    sys.exit(main())
