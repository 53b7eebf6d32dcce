"""Model cards and the table of models, written from presets and result files alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snukeras.zoo import presets

if TYPE_CHECKING:
    import keras

CARD = "README.md"


def outline(model: "keras.Model") -> str:
    """Describe a network in a line: size of the input, then class and units of each layer.

    Examples: "88 - SNU 150 - Dense 88", "28x28x1 - SNU 10". Layers without weights of their own
    are left out. The input of a text is "words", and where a table is tied the line ends so.
    """
    from snukeras.layers import TiedEmbedding

    sizes = [str(size) for size in model.input_shape[1:] if size is not None]
    parts = ["x".join(sizes) or "words"]
    for layer in model.layers:
        if layer.weights:
            recurrent = "recurrent " if getattr(layer, "recurrent", False) else ""
            units = getattr(layer, "output_dim", None) or layer.output.shape[-1]
            parts.append(f"{recurrent}{type(layer).__name__} {units}")
    if any(isinstance(layer, TiedEmbedding) for layer in model.layers):
        parts.append(f"tied {model.output_shape[-1]}")
    return " - ".join(parts)


def card(name: str, content: Path | str | None = None) -> str:
    """Return the model card of a preset as Markdown.

    Args:
        name: One of `snukeras.zoo.list()`.
        content: Folder of presets. Default: the one that ships with the package.

    Raises:
        ValueError: No such preset, or one without its results file.
    """
    preset = presets.info(name, content)
    results = preset["results"]
    if results is None:
        raise ValueError(f"{presets.RESULTS}/{name}.json is missing, so {name} has no card.")
    recipe = results["recipe"]
    published = preset["published"]
    lines = [
        f"# {preset['title']}",
        "",
        f"{preset['description']}",
        "",
        "| | |",
        "|---|---|",
        f"| name | `{name}` |",
        f"| task | {results['data']['name']} (`{preset['task']}`) |",
        f"| network | {preset['network']} |",
        f"| parameters | {preset['parameters']:,} |",
        f"| test, {results['unit']} | {spread(results['test'])}, {count(results)} |",
        f"| validation, {results['unit']} | {spread(results['valid'])} |",
        f"| these weights | seed {preset['seed']} (best on validation): test "
        f"{preset['test']:.3f}, validation {preset['valid']:.3f} |",
    ]
    if published:
        lines.append(f"| published | {published['value']} ({published['source']}) |")
    lines += [
        f"| licence of the weights | {preset['licence']} |",
        f"| licence of the data | {results['data']['licence']} |",
        "",
        "## Use",
        "",
        "```python",
        "import snukeras",
        "",
        f'model = snukeras.zoo.load("{name}")                  # an ordinary Keras model',
        f'fresh = snukeras.zoo.load("{name}", weights=False)   # the architecture alone',
        "```",
        "",
        "It is not compiled: `model.compile(...)` and `model.fit(...)` train it further.",
        f"`snukeras-export zoo:{name} --target pcm` exports it, `snukeras-zoo evaluate {name}`",
        "measures it again.",
        "",
        "## Training",
        "",
        f"`snukeras-zoo train {name}` repeats it. The epoch is chosen on the validation split; the",
        "test split is measured once, at that epoch.",
        "",
        "| seed | epoch | validation | test | minutes |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {seed['seed']} | {seed['epoch']} of {seed['epochs_trained']} | {seed['valid']:.3f} | "
        f"{seed['test']:.3f} | {seed['seconds'] / 60:.1f} |"
        for seed in results["seeds"]
    ]
    lines += [
        "",
        *_recipe(recipe),
        "",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in results["versions"].items()) + ".",
        f"Data: sha256 `{results['data']['sha256']}`.",
        "",
        "## Files",
        "",
        "| file | bytes | sha256 |",
        "|---|---|---|",
    ]
    lines += [
        f"| {file} | {pinned['bytes']:,} | `{pinned['sha256']}` |"
        for file, pinned in preset["files"].items()
    ]
    return "\n".join(lines) + "\n"


def table(content: Path | str | None = None) -> str:
    """Return the table of all models that have results, as Markdown."""
    folder = presets.content_folder(content)
    lines = [
        "| model | task | network | parameters | published | test, mean of seeds | unit |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in presets.list(folder):
        preset = presets.info(name, folder)
        results = preset["results"]
        if results is None:
            continue
        published = preset["published"]
        lines.append(
            f"| `{name}` | {results['data']['name']} | {preset['network']} | "
            f"{preset['parameters']:,} | {published['value'] if published else '-'} | "
            f"{spread(results['test'])}, {count(results)} | {results['unit']} |"
        )
    return "\n".join(lines) + "\n"


def spread(summary: dict[str, Any]) -> str:
    """Write the mean and deviation of seeds."""
    if summary["deviation"] is None:
        return f"{summary['mean']:.3f}"
    return f"{summary['mean']:.3f} ± {summary['deviation']:.3f}"


def count(results: dict[str, Any]) -> str:
    """Write the number of seeds."""
    seeds = len(results["seeds"])
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def _recipe(recipe: dict[str, Any]) -> list[str]:
    """List the recipe, an entry a line."""
    rows = [f"- layer: {_entry(layer)}" for layer in recipe["network"]["layers"]]
    for key in ("loss", "optimizer", "schedule", "averaging", "constraint", "noise"):
        if recipe.get(key):
            rows.append(f"- {key}: {_entry(recipe[key])}")
    for key in ("epochs", "batch_size", "patience", "padding"):
        if recipe[key] is not None:
            rows.append(f"- {key.replace('_', ' ')}: {recipe[key]}")
    if recipe.get("data"):
        rows.append(f"- data: {_entry(recipe['data'])}")
    if recipe.get("half_precision"):
        rows.append("- weights stored as float16; the figures are those of the stored weights")
    if recipe["notes"]:
        rows.append(f"- {recipe['notes']}")
    return rows


def _entry(entry: dict[str, Any]) -> str:
    arguments = ", ".join(
        f"{key} {json.dumps(value)}" for key, value in entry.items() if key != "class"
    )
    return f"{entry['class']}: {arguments}" if "class" in entry else arguments
