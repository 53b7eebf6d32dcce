"""Model cards and the table: written from preset and results."""

import json
import shutil

import pytest

from snukeras.zoo.publishing import cards


def test_card(small_zoo):
    content, _ = small_zoo
    card = cards.card("tiny", content)
    assert card == (content / "tiny" / "README.md").read_text("utf-8")
    results = json.loads((content / "results" / "tiny.json").read_text())
    preset = json.loads((content / "tiny" / "preset.json").read_text())
    for part in (
        "# A tiny network",
        "88 - SNU 6 - Dense 88",
        f"| parameters | {preset['parameters']:,} |",
        f"{results['test']['mean']:.3f} ± {results['test']['deviation']:.3f}, 2 seeds",
        "1.5 (nobody)",
        "licence of the weights | Apache-2.0",
        "licence of the data | none needed",
        'snukeras.zoo.load("tiny")',
        preset["files"]["model.weights.h5"]["sha256"],
        "optimizer: AdamW: learning_rate 0.05, clipnorm 1.0",
        '"uniform": [0.3, 0.9]',
        f"| PCM devices | {2 * (88 * 6 + 6 * 88):,}, two a weight |",
        f"| operations a step, dense | {88 * 6 + 6 * 88:,} multiply-accumulates |",
        " additions |",
        "| counted on | 5 songs of the test split |",
        "a sample of",
        "| training | ",
        "| **`tiny`** | 88 - SNU 6 - Dense 88 | 1,156 |",
        "task.loss({})",
        "snukeras-export zoo:tiny --target pcm",
    ):
        assert part in card, part
    for seed in results["seeds"]:
        assert f"| {seed['seed']} | {seed['epoch']} of 4 | {seed['valid']:.3f} |" in card


def test_cards_show_the_other_models_of_the_task(small_zoo, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    shutil.copytree(content / "tiny", content / "other")
    for path in (content / "other" / "preset.json", content / "results" / "other.json"):
        text = (path if path.exists() else content / "results" / "tiny.json").read_text()
        path.write_text(text.replace('"name": "tiny"', '"name": "other"'))
    assert cards.write("another task", content) == []
    assert cards.write("scales", content) == ["other", "tiny"]
    card = (content / "tiny" / "README.md").read_text("utf-8")
    assert "| **`tiny`** |" in card and "| [`other`](../other/README.md) |" in card


def test_card_needs_results(small_zoo, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    (content / "results" / "tiny.json").unlink()
    with pytest.raises(ValueError, match=r"results/tiny\.json is missing"):
        cards.card("tiny", content)


def test_table(small_zoo):
    lines = cards.table(small_zoo[0]).splitlines()
    assert len(lines) == 3
    results = json.loads((small_zoo[0] / "results" / "tiny.json").read_text())
    mean = f"{results['test']['mean']:.3f} ± {results['test']['deviation']:.3f}, 2 seeds"
    assert lines[2].startswith("| `tiny` | Scales | 88 - SNU 6 - Dense 88 | 1,156")
    assert f"| 1.5 | {mean} | nats per step |" in lines[2]
