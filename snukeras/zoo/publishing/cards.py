"""Model cards and the table of models, written from presets and result files alone."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snukeras import _files
from snukeras._files import JsonObject
from snukeras._units import energy_text, range_text
from snukeras.zoo import presets, published
from snukeras.zoo.contents import CostsOnData, Figure, Info, Preset, Results, Split
from snukeras.zoo.publishing.energy import TARGET, energy_of_step
from snukeras.zoo.tasks import TASKS, Task

if TYPE_CHECKING:
    import keras

CARD = "README.md"

# Links to files of this repository.
_LINK = re.compile(r"\[([^\[\]]+)\]\(\.\./[^()]*\)")
_LEGEND = "Figures are means over the seeds, ± their 95 % interval (Student's t)."


def outline(model: "keras.Model") -> str:
    """Describe a network in a line: size of the input, then class and units of each layer.

    Examples: "88 - SNU 150 - Dense 88", "28x28x1 - SNU 10". Layers without weights of their own
    are left out, and normalisations. The input of a text is "words", that of sound "sound", and
    where a table is tied the line ends so.
    """
    from keras.layers import BatchNormalization

    from snukeras.layers import LogMel, TiedEmbedding

    sizes = [str(size) for size in model.input_shape[1:] if size is not None]
    hears = any(isinstance(layer, LogMel) for layer in model.layers)
    parts = ["x".join(sizes) or ("sound" if hears else "words")]
    for layer in model.layers:
        if layer.weights and not isinstance(layer, BatchNormalization):
            recurrent = "recurrent " if getattr(layer, "recurrent", False) else ""
            units = getattr(layer, "output_dim", None) or layer.output.shape[-1]
            parts.append(f"{recurrent}{type(layer).__name__} {units}")
    if any(isinstance(layer, TiedEmbedding) for layer in model.layers):
        parts.append(f"tied {model.output_shape[-1]}")
    return " - ".join(parts)


def card(
    name: str,
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
    hub: bool = False,
) -> str:
    """Return the model card of a preset as Markdown.

    It shows the figures of the other models of the task as well.

    Args:
        name: One of `snukeras.zoo.list()`.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.
        hub: For a hub of models, where the files that links lead to are not: links within the
            repository become their words.

    Raises:
        ValueError: No such preset, or one without its results file.
    """
    preset = presets.info(name, content)
    results = preset["results"]
    if results is None:
        raise ValueError(f"{presets.RESULTS}/{name}.json is missing, so {name} has no card.")
    task = tasks.get(preset["task"])
    lines = [
        *_front_matter(preset, results, task),
        f"# {preset['title']}",
        "",
        f"{preset['description']}",
        "",
        "| | |",
        "|---|---|",
        f"| name | `{name}` |",
        f"| task | {_data(results)} (`{preset['task']}`) |",
        f"| network | {preset['network']} |",
        f"| parameters | {preset['parameters']:,} |",
        f"| test, {unit(results)} | {interval(results, 'test')}, {count(results)} |",
        f"| validation, {unit(results)} | {interval(results, 'valid')} |",
        f"| deviation of one seed | {_deviation(results, 'test')} on test, "
        f"{_deviation(results, 'valid')} on validation |",
        f"| these weights | seed {preset['seed']} (best on validation{_judged(results)}): test "
        f"{preset['test']:.3f}, validation {preset['valid']:.3f} |",
    ]
    if preset["published"]:
        lines.append(f"| published | {preset['published']} |")
    lines += [
        *_costs(results.get("costs")),
        *_chips(preset, results),
        f"| training | {_minutes(results):.1f} minutes a seed |",
        f"| licence of the weights | {preset['licence']} |",
        f"| licence of the data | {results['data']['licence']} |",
        "",
        *_beside(preset, results, content),
        *_published(preset["task"], content),
        *_purpose(task),
        *_use(name, task),
        *_golden(name, content, task),
        *_training(preset, results),
        "## Files",
        "",
        "| file | bytes | sha256 |",
        "|---|---|---|",
    ]
    lines += [
        f"| {file} | {pinned['bytes']:,} | `{pinned['sha256']}` |"
        for file, pinned in preset["files"].items()
    ]
    text = "\n".join(lines) + "\n"
    if not hub:
        return text
    # The weights there are loaded from there.
    return _LINK.sub(r"\1", text).replace(
        f'snukeras.zoo.load("{name}"', f'snukeras.zoo.load("hf://OWNER/{name}"'
    )


def write(
    task: str | None = None,
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
) -> list[str]:
    """Write the cards of a task's presets anew, since each shows the figures of the others.

    Args:
        task: Name of a task. Default: all of them.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.

    Returns:
        The names of the presets; those without a results file have no card.
    """
    folder = presets.content_folder(content)
    names = []
    for name in presets.list(content=folder):
        preset = presets.info(name, folder)
        if preset["results"] is not None and task in (None, preset["task"]):
            _files.write_text(folder / name / CARD, card(name, folder, tasks))
            names.append(name)
    return names


def _costs(costs: CostsOnData | None) -> list[str]:
    """Return rows on spikes, operations and devices, where they were measured."""
    if costs is None:
        return []
    rows = []
    steps = costs["steps_per_sample"]
    if costs["spikes_per_sample"] is not None:
        spikes = costs["spikes_per_sample"]
        rows.append(
            f"| spikes | {spikes:,.0f} a sample of {steps:.4g} steps, "
            f"{spikes / steps:,.1f} a step |"
        )
    counts = {
        "additions": costs["additions_per_step"],
        "multiplications": costs["multiplications_per_step"],
    }
    driven = [f"{count:,} {what}" for what, count in counts.items() if count]
    rows += [
        f"| operations a step, dense | {costs['macs_per_step']:,} multiply-accumulates |",
        f"| operations a step, zeros skipped | {' and '.join(driven)} |",
        f"| counted on | {costs['samples']:,} {costs['data']} |",
        f"| PCM devices | {costs['pcm_devices']:,}, two a weight |",
    ]
    energy = energy_of_step(costs)
    if energy is not None:
        rows.append(
            f"| energy a step | {range_text(*map(energy_text, energy))}: tiles and converters "
            f"alone, by the figures of `{TARGET}`, from the weights in use to whole tiles |"
        )
    return rows


def _chips(preset: Info, results: Results) -> list[str]:
    """Return rows on simulated chips, where these very weights were measured there."""
    found = results.get("chips")
    if found is None or found["weights_sha256"] != preset["files"][presets.WEIGHTS]["sha256"]:
        return []
    lower = results.get("lower_is_better")
    return [
        f"| these weights on {found['chips']} simulated chips, {time} after programming | "
        f"{figure['mean']:.3f} ± {figure['std']:.3f}, "
        f"worst {figure['max'] if lower else figure['min']:.3f} "
        f"({found['device']}, drift compensation: {found['compensation']}) |"
        for time, figure in found["times"].items()
    ]


def _front_matter(preset: Preset, results: Results, task: Task | None) -> list[str]:
    """Return what hubs of models read, as YAML: licence, tags, data set, metrics, results.

    Texts are written as JSON, which YAML reads.
    """
    tags = ["snukeras", "keras", *(task.tags if task else ())]
    if re.search(r"\b(Conv)?SNU", preset["network"]):
        tags.insert(2, "spiking-neural-network")
    if preset["name"].endswith(("_pcm", "_chip")):
        tags.append("phase-change-memory")
    result = {
        "task": {"type": task.tags[-1] if task and task.tags else "other"},
        "dataset": {"name": results["data"]["name"], "type": preset["task"]},
        "metrics": [
            {
                "name": f"test, {unit(results)}, mean of {count(results)}",
                "type": preset["metric"],
                "value": round(results["test"]["mean"], 4),
            }
        ],
    }
    index = [{"name": preset["name"], "results": [result]}]
    entries = {
        "license": preset["licence"].lower(),
        "library_name": "keras",
        "tags": tags,
        "datasets": [preset["task"]],
        "metrics": [preset["metric"]],
        "model-index": index,
    }
    lines = (f"{key}: {json.dumps(value)}" for key, value in entries.items())
    return ["---", *lines, "---", ""]


def _purpose(task: Task | None) -> list[str]:
    """Return what a model is for, and what it is not for."""
    if task is None or not task.intended:
        return []
    return [
        "## Intended use and limits",
        "",
        task.intended,
        "",
        f"{task.limits} It was not tested for use where a wrong output does harm.",
        "",
    ]


def _golden(name: str, content: Path | str | None, task: Task | None) -> list[str]:
    """Return what the model puts out for its golden input: the largest outputs of the last step."""
    given, output = presets.golden(name, content)
    last = output.reshape(-1, output.shape[-1])[-1]
    largest = sorted(range(len(last)), key=lambda index: -last[index])[:3]
    label = task.label if task else "output {}".format
    shown = ", ".join(f"{label(index)} {last[index]:.3f}" for index in largest)
    shape = " x ".join(map(str, given.shape))
    return [
        "## Example output",
        "",
        f"For the input of `golden.npz`, {shape}, the largest outputs"
        f"{' of the last step' if output.ndim > 2 else ''} are: {shown}.",
        "",
    ]


def _minutes(results: Results) -> float:
    seconds = [seed["seconds"] for seed in results["seeds"]]
    return float(sum(seconds) / len(seconds) / 60)


def _beside(preset: Info, own: Results, content: Path | str | None) -> list[str]:
    """Return the table of all models of the task."""
    rows = []
    for name in presets.list(content=content):
        other = presets.info(name, content)
        results = other["results"]
        if results is None or other["task"] != preset["task"]:
            continue
        costs = results.get("costs")
        figures = [
            f"**`{name}`**" if name == preset["name"] else f"[`{name}`](../{name}/{CARD})",
            other["network"],
            f"{other['parameters']:,}",
            f"{costs['macs_per_step']:,}" if costs else "-",
            f"{costs['additions_per_step'] + costs['multiplications_per_step']:,}"
            if costs
            else "-",
            f"{other['published'].value:g}" if other["published"] else "-",
            f"{interval(results, 'test')}, {count(results)}",
        ]
        rows.append(f"| {' | '.join(figures)} |")
    return [
        "## Beside the other models of this task",
        "",
        "| model | network | parameters | operations a step, dense | zeros skipped | published | "
        f"test, {unit(own)} |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        _LEGEND,
        "",
    ]


def _published(task: str, content: Path | str | None) -> list[str]:
    """Return the table of what others have published on the task."""
    figures = published.read(presets.content_folder(content)).values()
    rows = [_row(figure) for figure in figures if figure.task == task]
    if not rows:
        return []
    return [
        "Published by others:",
        "",
        "| figure | network | how it was measured | source |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _row(figure: published.Published) -> str:
    return (
        f"| {figure.value:g} | {figure.network} | {figure.protocol} | "
        f"[{figure.citation}]({figure.url}) |"
    )


def _use(name: str, task: Task | None) -> list[str]:
    example = () if task is None else task.example()
    return [
        "## Use",
        "",
        "```python",
        "import keras, numpy as np, snukeras",
        "",
        f'model = snukeras.zoo.load("{name}")                  # an ordinary Keras model',
        f'fresh = snukeras.zoo.load("{name}", weights=False)   # the architecture alone',
        *(["", *example] if example else []),
        "```",
        "",
        "Another head, and data of your own: [docs/zoo.md](../../docs/zoo.md).",
        "",
        "```console",
        f"$ snukeras-export zoo:{name} --target pcm --output exported   # ONNX and crossbar map",
        f"$ snukeras-zoo evaluate {name}                                # the figures again",
        "```",
        "",
    ]


def _training(preset: Info, results: Results) -> list[str]:
    """Return the recipe, and what came of each seed."""
    name = preset["name"]
    notes = (preset["recipe"] or {}).get("notes")
    return [
        "## Training",
        "",
        f"`snukeras-zoo train {name}` repeats it. The epoch is chosen on the validation split; the",
        "test split is measured once, at that epoch.",
        "",
        "| seed | epoch | validation | test | minutes |",
        "|---|---|---|---|---|",
        *(
            f"| {seed['seed']} | {seed['epoch']} of {seed['epochs_trained']} | "
            f"{seed['valid']:.3f} | {seed['test']:.3f} | {seed['seconds'] / 60:.1f} |"
            for seed in results["seeds"]
        ),
        "",
        *_recipe({**results["recipe"], "notes": notes}),
        "",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in results["versions"].items()) + ".",
        f"Data: sha256 `{results['data']['sha256']}`.",
        "",
    ]


def table(
    content: Path | str | None = None,
    task: str | None = None,
    names: Sequence[str] | None = None,
) -> str:
    """Return the table of all models that have results, as Markdown.

    Args:
        content: Folder of presets. Default: the one that ships with the package.
        task: Name of the task whose models are wanted. Default: all of them.
        names: Names of the models that are wanted, in their order. Default: all of them.
    """
    folder = presets.content_folder(content)
    lines = [
        "| model | task | network | parameters | published | test, mean of seeds | unit |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in presets.list(content=folder) if names is None else names:
        preset = presets.info(name, folder)
        results = preset["results"]
        if results is None or task not in (None, preset["task"]):
            continue
        figure = preset["published"]
        lines.append(
            f"| `{name}` | {_data(results)} | {preset['network']} | "
            f"{preset['parameters']:,} | {f'{figure.value:g}' if figure else '-'} | "
            f"{interval(results, 'test')}, {count(results)} | {unit(results)} |"
        )
    return "\n".join(lines) + "\n"


def published_table(content: Path | str | None = None) -> str:
    """Return the table of all published figures, as Markdown."""
    folder = presets.content_folder(content)
    titles = {task.name: task.title for task in TASKS.values()}
    lines = [
        "| task | figure | network | how it was measured | source |",
        "|---|---|---|---|---|",
        *(
            f"| {titles.get(figure.task, figure.task)} {_row(figure)}"
            for figure in published.read(folder).values()
        ),
    ]
    return "\n".join(lines) + "\n"


def _data(results: Results) -> str:
    """Name the data of a preset, and whether the network saw distorted images in training."""
    title = results["data"]["name"]
    layers = results["recipe"]["network"]["layers"]
    distorted = any(layer.get("class") == "ElasticDistortion" for layer in layers)
    return f"{title}, distorted in training" if distorted else title


def unit(results: Results | Preset) -> str:
    """Name the unit of a figure, and which way is better."""
    lower = results.get("lower_is_better")
    if lower is None:
        return results["unit"]
    return f"{results['unit']}, {'lower' if lower else 'higher'} is better"


def interval(results: Results, split: Split) -> str:
    """Write the mean of the seeds with its 95 % interval, Student's t over the seeds.

    Args:
        results: The results of a model.
        split: "valid" or "test".
    """
    mean, deviation = results[split]["mean"], results[split]["deviation"]
    if deviation is None:
        return f"{mean:.3f}"
    seeds = len(results["seeds"])
    half = _quantile(seeds - 1) * deviation / math.sqrt(seeds)
    return f"{mean:.3f} ± {half:.3f}"


def _quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, without SciPy.

    Abramowitz and Stegun, 26.7.3 and 26.7.4, have the probability within -t and t as a sum.
    """

    def within(t: float) -> float:
        angle = math.atan(t / math.sqrt(freedom))
        sine, square, odd = math.sin(angle), math.cos(angle) ** 2, freedom % 2
        term, total = (math.cos(angle) if odd else 1.0), 0.0
        for k in range(freedom // 2):
            total += term
            term *= square * (2 * k + 1 + odd) / (2 * k + 2 + odd)
        return 2.0 / math.pi * (angle + sine * total) if odd else sine * total

    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if within(middle) > 0.95 else (middle, high)
    return low


def _deviation(results: Results, split: Split) -> str:
    deviation = results[split]["deviation"]
    return "unknown" if deviation is None else f"{deviation:.3f}"


def _judged(results: Results) -> str:
    """Say on what the seed was chosen, where that is not the network itself."""
    return ", as chips compute it" if results["recipe"].get("analog") else ""


def spread(summary: Figure) -> str:
    """Write the mean and deviation of seeds."""
    if summary["deviation"] is None:
        return f"{summary['mean']:.3f}"
    return f"{summary['mean']:.3f} ± {summary['deviation']:.3f}"


def count(results: Results) -> str:
    """Write the number of seeds."""
    seeds = len(results["seeds"])
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def _recipe(recipe: JsonObject) -> list[str]:
    """List the recipe, an entry a line."""
    rows = [f"- layer: {_entry(layer)}" for layer in recipe["network"]["layers"]]
    for key in (
        "start",
        "teacher",
        "loss",
        "optimizer",
        "schedule",
        "averaging",
        "constraint",
        "noise",
        "analog",
    ):
        if recipe.get(key):
            rows.append(f"- {key}: {_entry(recipe[key])}")
    for key in ("epochs", "batch_size", "patience", "padding"):
        if recipe[key] is not None:
            rows.append(f"- {key.replace('_', ' ')}: {recipe[key]}")
    if recipe.get("ties") == "last":
        rows.append("- of epochs with equal validation figures the last")
    if recipe.get("data"):
        rows.append(f"- data: {_entry(recipe['data'])}")
    if recipe.get("quick_lstm"):
        rows.append("- LSTM layers trained with the quicker loop (`quick_lstm`)")
    if recipe.get("half_precision"):
        rows.append("- weights stored as float16; the figures are those of the stored weights")
    if recipe["notes"]:
        rows.append(f"- {recipe['notes']}")
    return rows


def _entry(entry: JsonObject) -> str:
    arguments = ", ".join(
        f"{key} {json.dumps(value)}" for key, value in entry.items() if key != "class"
    )
    return f"{entry['class']}: {arguments}" if "class" in entry else arguments
