"""What 8-bit weights do to presets: the figure of the whole test split, by runtime.

    python -m experiments.int8 jsb_snu mnist_snu

A preset is exported as the command does it: its int8 forms round their weights for, and find their
ranges on, the part of the test split that an export compares on. Then the whole test split runs in
ONNX Runtime, in float and in both int8 forms, and in the C of both kinds. Beside the figure stand
the size of the file and how often the units of each layer spike. No figure depends on the time that
it takes.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import reporting
from experiments.reporting import reported
from snukeras import _executors, _files

if TYPE_CHECKING:
    from snukeras.export.c.files import Made
    from snukeras.export.samples import Samples

RESULTS_FOLDER = "int8"
BATCH = 250


def test_split(task: str, limit: int | None = None) -> "Samples":
    """Return the whole test split of a task, as an export takes samples.

    Args:
        task: "jsb_chorales" or "mnist".
        limit: Of songs or images; None for all.

    Raises:
        ValueError: It is another task.
    """
    from snukeras.datasets import jsb_chorales, mnist
    from snukeras.export.samples import Samples

    if task == "jsb_chorales":
        return Samples.songs(jsb_chorales.load_data()[2][:limit], "test split")
    if task == "mnist":
        _, (images, digits) = mnist.load_data()
        x, y = images[:limit, ..., None].astype("float32") / 255.0, digits[:limit].astype("int32")
        starts = range(0, len(x), BATCH)
        return Samples(
            "test split",
            [[x[start : start + BATCH]] for start in starts],
            [y[start : start + BATCH] for start in starts],
            "accuracy",
        )
    raise ValueError(f"The test split of {task!r} is not known here; presets of jsb and mnist are.")


def measure(preset: str, limit: int | None = None) -> dict[str, Any]:
    """Run all forms of a preset on the test split.

    Args:
        preset: Its name.
        limit: Of songs or images; None for all.
    """
    from snukeras import zoo
    from snukeras.export.c import files
    from snukeras.export.folder import INT8, ONNX
    from snukeras.export.network import Network
    from snukeras.export.onnx.build import to_onnx
    from snukeras.export.samples import Samples
    from snukeras.export.verify.figures import METRICS
    from snukeras.export.verify.int8 import compare_int8, write_int8
    from snukeras.export.verify.metric import measure as figure
    from snukeras.export.verify.onnx import run_onnx, session
    from snukeras.zoo.tasks import TASKS

    model, task = zoo.load(preset), zoo.info(preset)["task"]
    samples, part = test_split(task, limit), TASKS[task].part()
    given = samples if part is None else Samples.part(part)
    network = Network.read(model)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / ONNX).write_bytes(to_onnx(model).SerializeToString())
        runtime = session((folder / ONNX).read_bytes())
        first = runtime.get_outputs()[0].name
        plain = [run_onnx(runtime, feeds)[first] for feeds in samples.batches]
        for mode in ("dynamic", "static"):
            write_int8(folder, mode, given)
            result, outputs = compare_int8(folder / ONNX, folder / INT8, samples)
            found[mode] = {"value": figure(outputs, samples), **result.to_dict()}
        made = files.make(network, given, preset)
        for form, outputs in _in_c(made, samples, folder):
            found[form] = {"value": figure(outputs, samples)}
    metric = METRICS[samples.metric]
    return {
        "preset": preset,
        "metric": metric.title,
        "unit": metric.unit,
        "samples": sum(len(feeds[0]) for feeds in samples.batches),
        "prepared_on": given.kind,
        "float": figure(plain, samples),
        "forms": found,
    }


def _in_c(made: "Made", samples: "Samples", folder: Path) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Compile both forms of the C and run the samples; iterate over name and outputs by batch."""
    from snukeras.export.c import compiler, quantise
    from snukeras.export.c.files import stepped
    from snukeras.export.folder import C_HEADER, C_INT8_HEADER

    output = made.plan.outputs[0]
    bits = made.integers.bits if made.integers else {}
    forms = [("c", made.float32, C_HEADER, "float")]
    if made.int8 is not None:
        forms.append(("c_int8", made.int8, C_INT8_HEADER, "int16_t"))
    for name, source, header, kind in forms:
        program = compiler.Program(
            source.code, (source.header, header), made.plan, kind, (), folder
        )
        outputs = []
        for feeds in samples.batches:
            given = stepped(made.plan, feeds)
            if name == "c_int8":
                given = [
                    quantise.fixed(feed, bits[tensor.label])
                    for feed, tensor in zip(given, made.plan.inputs, strict=True)
                ]
            y = program.run(given)[0]
            y = y if output.over_time else y[:, -1]
            outputs.append(y / 2.0 ** bits[output.label] if name == "c_int8" else y)
        yield name, outputs


def table(root: Path | str | None = None) -> str:
    """Return the figures of all presets as Markdown.

    Args:
        root: Folder of all results. Default: `experiments/results` of the checkout.
    """
    lines = [
        "| preset, whole test split | float | int8 | int8 static | C | C int8 | size of int8 "
        "| rate of spikes, by layer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(reporting.folder(RESULTS_FOLDER, root).glob("*.json")):
        results = _files.read_json(path)
        forms = results["forms"]
        values = [results["float"]]
        values += [forms[form]["value"] for form in ("dynamic", "static", "c", "c_int8")]
        digits = 2 if results["unit"] == "%" else 4
        rates = ", ".join(
            f"{rate['before']:.4f} to {rate['after']:.4f}" for rate in forms["dynamic"]["rates"]
        )
        lines.append(
            f"| {results['preset']}, {results['metric']}, {results['unit']} | "
            + " | ".join(f"{value:.{digits}f}" for value in values)
            + f" | {forms['dynamic']['share']:.0%} | {rates} |"
        )
    return "\n".join(lines) + "\n"


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Measure presets, each into a file of its own; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.int8", description=__doc__.splitlines()[0]
    )
    parser.add_argument("presets", nargs="+", metavar="NAME")
    presets = list(dict.fromkeys(parser.parse_args(argv).presets))
    tasks = [(preset,) for preset in presets]
    with contextlib.closing(_executors.gather(measure, tasks, reporting.executor())) as measured:
        for number, found in measured:
            path = reporting.folder(RESULTS_FOLDER) / f"{presets[number]}.json"
            _files.write_json(path, found)
            print(f"{path} is written.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
