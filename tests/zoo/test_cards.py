"""Model cards and the table: written from preset and results."""

import json
import shutil

import pytest
from tiny_zoo import PUBLISHED, make_task

import snukeras
from snukeras.zoo import presets, published
from snukeras.zoo.publishing import cards, energy, publish

TASKS = {"scales": make_task()}


def half_of_two(results):
    """Half of the 95 % interval of a mean of two: Student's t of one degree of freedom."""
    return 12.706205 * results["test"]["deviation"] / 2**0.5


def test_card(small_zoo):
    content, _ = small_zoo
    card = cards.card("tiny", content, TASKS)
    assert card == (content / "tiny" / "README.md").read_text("utf-8")
    results = json.loads((content / "results" / "tiny.json").read_text())
    preset = json.loads((content / "tiny" / "preset.json").read_text())
    for part in (
        "# A tiny network",
        "88 - SNU 6 - Dense 88",
        f"| parameters | {preset['parameters']:,} |",
        "| test, nats per step, lower is better | "
        f"{results['test']['mean']:.3f} ± {half_of_two(results):.3f}, 2 seeds |",
        f"| deviation of one seed | {results['test']['deviation']:.3f} on test, ",
        "| published | 1.5: 88 - nothing; by ear (Nobody 1999) |",
        "| 1.5 | 88 - nothing | by ear | [Nobody 1999](https://example.org) |",
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
        'license: "apache-2.0"',
        'datasets: ["scales"]',
        "| energy a step | ",
        "## Intended use and limits",
        "## Example output",
        "of the last step are: ",
        "| training | ",
        "| **`tiny`** | 88 - SNU 6 - Dense 88 | 1,156 |",
        "model.evaluate(x, y, sample_weight=mask)",
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
    assert cards.write("another task", content, TASKS) == []
    assert cards.write("scales", content, TASKS) == ["other", "tiny"]
    card = (content / "tiny" / "README.md").read_text("utf-8")
    assert "| **`tiny`** |" in card and "| [`other`](../other/README.md) |" in card


def test_figures_on_chips_are_those_of_these_weights(small_zoo, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    figure = {"mean": 9.5, "std": 0.25, "min": 9.0, "max": 10.0}
    preset = presets.info("tiny", content)
    found = {
        "weights_sha256": preset["files"]["model.weights.h5"]["sha256"],
        "device": "GenericPCM",
        "chips": 3,
        "compensation": "column",
        "times": {"1 year": figure},
    }
    publish.keep_chips("tiny", found, content, TASKS)
    row = "on 3 simulated chips, 1 year after programming | 9.500 ± 0.250, worst 10.000"
    assert row in (content / "tiny" / "README.md").read_text("utf-8")
    with pytest.raises(ValueError, match="of other weights of tiny"):
        publish.keep_chips("tiny", {**found, "weights_sha256": "0" * 64}, content, TASKS)
    # Trained and published anew, the old figures would not be of these weights.
    path = content / "results" / "tiny.json"
    results = json.loads(path.read_text())
    results["chips"]["weights_sha256"] = "0" * 64
    path.write_text(json.dumps(results))
    assert "simulated chips" not in cards.card("tiny", content, TASKS)


def test_hubs_can_read_the_head_of_every_card():
    for name in presets.list():
        text = (presets.content_folder() / name / "README.md").read_text("utf-8")
        head, rest = text.removeprefix("---\n").split("\n---\n", 1)
        # Each value is JSON, which YAML reads.
        entries = {k: json.loads(v) for k, v in (line.split(": ", 1) for line in head.splitlines())}
        preset = presets.info(name)
        assert entries["license"] == preset["licence"].lower() and rest.startswith("\n# ")
        assert entries["datasets"] == [preset["task"]] and "snukeras" in entries["tags"]
        (model,) = entries["model-index"]
        (metric,) = model["results"][0]["metrics"]
        assert metric["value"] == pytest.approx(preset["results"]["test"]["mean"], abs=1e-4)
        assert entries["metrics"] == [metric["type"]] == [preset["metric"]]
        for heading in ("## Intended use and limits", "## Example output"):
            assert heading in rest


def test_the_energy_of_a_card_is_that_of_the_summary():
    model = presets.load("jsb_ssnu")
    costs = presets.info("jsb_ssnu")["results"]["costs"]
    total = snukeras.summary(model, target=energy.TARGET).total
    found = energy.energy_of_step(costs)
    assert found == pytest.approx((total.low_nJ, total.high_nJ), rel=1e-5)


def test_card_needs_results(small_zoo, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    (content / "results" / "tiny.json").unlink()
    with pytest.raises(ValueError, match=r"results/tiny\.json is missing"):
        cards.card("tiny", content, TASKS)


def test_table(small_zoo):
    lines = cards.table(small_zoo[0]).splitlines()
    assert len(lines) == 3
    results = json.loads((small_zoo[0] / "results" / "tiny.json").read_text())
    mean = f"{results['test']['mean']:.3f} ± {half_of_two(results):.3f}, 2 seeds"
    assert lines[2].startswith("| `tiny` | Scales | 88 - SNU 6 - Dense 88 | 1,156")
    assert f"| 1.5 | {mean} | nats per step, lower is better |" in lines[2]


def test_the_interval_of_one_seed_is_none():
    results = {"test": {"mean": 8.25, "deviation": None}, "seeds": [0]}
    assert cards.interval(results, "test") == "8.250"


def test_a_distorted_task_says_so():
    layers = presets.info("mnist_snu")["results"]["recipe"]["network"]["layers"]
    assert layers[0]["class"] == "ElasticDistortion"
    rows = {row.split("`")[1]: row for row in cards.table().splitlines()[2:]}
    assert "| MNIST, distorted in training |" in rows["mnist_snu"]
    images = [row.split("`")[1] for row in cards.table(task="mnist").splitlines()[2:]]
    assert images == [name for name in rows if name.startswith("mnist_")]
    some = cards.table(names=("ptb_ssnu", "jsb_snu")).splitlines()[2:]
    assert some == [rows["ptb_ssnu"], rows["jsb_snu"]]
    assert "higher is better |" in rows["mnist_snu"] and "lower is better |" in rows["jsb_snu"]


def test_published_figures_have_one_source():
    figures = published.read(presets.content_folder())
    named = {
        presets.info(name)["published"].name
        for name in presets.list()
        if presets.info(name)["published"]
    }
    assert named <= set(figures) and {"jsb-tcn", "nottingham-tcn"} <= set(figures)
    # Seven layers are those of the seven: no other model is measured against them.
    assert figures["mnist-snu-7layers"].value == 98.47
    assert presets.info("mnist_snu")["published"] is None
    for name in presets.list():
        figure = presets.info(name)["published"]
        assert figure is None or figure.task == presets.info(name)["task"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figures": {"one": {"value": 1.0}}}, "`figures`: one has to hold `task`"),
        ({"sources": {}}, "names a source that is not there"),
        ({"format": 2}, "format 2"),
    ],
)
def test_faulty_published_figures(change, message, tmp_path):
    (tmp_path / "published.json").write_text(json.dumps({**PUBLISHED, **change}))
    with pytest.raises(ValueError, match=message):
        published.read(tmp_path)
