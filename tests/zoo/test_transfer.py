"""What a training takes from a pretrained model: the weights it starts from, and a teacher."""

import json
import shutil

import numpy as np
import pytest
from tiny_zoo import make_recipe, make_task, write_recipe

from snukeras.zoo import presets, recipes, training
from snukeras.zoo.publishing import publish
from snukeras.zoo.training import transfer


@pytest.mark.slow
def test_start_from_a_pretrained_model(small_zoo):
    """Scaled potentials fire the same spikes, so the network computes the same."""
    content, _ = small_zoo
    recipe = recipes.check(
        make_recipe(
            start={"model": "tiny", "scale": 0.25},
            network=_with_units(state_activation="relu", pseudo_derivative="arctan"),
        )
    )
    model = recipes.network(recipe, seed=3)
    transfer.start(recipe, model, content)
    source = presets.load("tiny", content=content)
    x = np.random.default_rng(0).random((4, 30, 88)).astype("float32") * 4
    np.testing.assert_array_equal(model(x), source(x))
    assert 0 < np.mean(source.layers[0](x)) < 1
    for name, scale in (("kernel", 0.25), ("threshold", 0.25), ("decay", 1.0)):
        old, new = (
            next(w for w in network.layers[0].weights if w.name == name).numpy()
            for network in (source, model)
        )
        np.testing.assert_array_equal(new, scale * old)


@pytest.mark.slow
def test_a_soft_unit_starts_a_spiking_one(tmp_path):
    layer = {"units": 5, "recurrent": True, "return_sequences": True, "threshold": 2.0}
    head = {"class": "Dense", "units": 88, "activation": "sigmoid"}
    network = {"input_shape": [None, 88], "layers": [{"class": "SSNU", **layer}, head]}
    write_recipe(tmp_path, network=network, seeds=[0], epochs=1, averaging=None)
    publish.train_and_publish(
        "tiny",
        tmp_path,
        tmp_path / "runs",
        progress=lambda event: None,
        tasks={"scales": make_task()},
    )
    network = {"input_shape": [None, 88], "layers": [{"class": "SNU", **layer}, head]}
    recipe = recipes.check(make_recipe(network=network, start={"model": "tiny"}))
    model = recipes.network(recipe, seed=1)
    transfer.start(recipe, model, tmp_path)
    for a, b in zip(presets.load("tiny", content=tmp_path).weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": {"model": "tine"}}, r"no pretrained model named 'tine'. Did you mean tiny\?"),
        ({"network": "units"}, r"cannot start from tiny.*\(88, 6\).*\(88, 7\)"),
        ({"network": "no decay"}, "cannot start from tiny.*decay"),
        ({"network": "no head"}, "cannot start from tiny: it has layers with the weights"),
    ],
)
def test_start_that_does_not_fit(small_zoo, changes, message):
    networks = {
        "units": _with_units(units=7),
        "no decay": _with_units(trainable_decay=False),
        "no head": {**_with_units(), "layers": _with_units()["layers"][:1]},
    }
    network = networks.get(changes.get("network"), _with_units())
    recipe = recipes.check(
        make_recipe(**{"start": {"model": "tiny"}, **changes, "network": network})
    )
    with pytest.raises(ValueError, match=message):
        transfer.start(recipe, recipes.network(recipe, 0), small_zoo[0])


def test_taught(small_zoo):
    recipe = recipes.check(make_recipe(teacher={"model": "tiny", "weight": 0.25}))
    task = make_task()
    plain = task.training_data(recipe, 0)
    mixed = transfer.taught(recipe, task.training_data(recipe, 0), small_zoo[0])
    teacher = presets.load("tiny", content=small_zoo[0])
    count = 0
    for (x, y, mask), (taught_x, taught_y, taught_mask) in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(taught_x, x)
        np.testing.assert_array_equal(taught_mask, mask)
        expected = 0.75 * y + 0.25 * teacher.predict_on_batch(x)
        np.testing.assert_allclose(taught_y, expected, atol=1e-6)
        count += 1
    assert count == task.steps_per_epoch(recipe) * recipe.epochs
    recipe = recipes.check(make_recipe())
    assert transfer.taught(recipe, plain) is plain


def test_teacher_of_another_kind(small_zoo):
    recipe = recipes.check(make_recipe(teacher={"model": "tiny"}))
    numbers = make_task().training_data(recipe, 0).map(lambda x, y, mask: (x, y[..., 0], mask))
    with pytest.raises(
        ValueError, match=r"the teacher tiny, whose predictions of shape.*do not fit"
    ):
        transfer.taught(recipe, numbers, small_zoo[0])


@pytest.mark.slow
def test_scale_needs_thresholds_that_are_weights(tmp_path):
    """A threshold of the configuration is not scaled: the spikes would be others."""
    content = write_recipe(tmp_path, network=_with_units(trainable_threshold=False), seeds=[0])
    tasks = {"scales": make_task()}
    publish.train_and_publish(
        "tiny", content, tmp_path / "runs", progress=lambda event: None, tasks=tasks
    )
    network = _with_units(trainable_threshold=False)
    for start in ({"model": "tiny"}, {"model": "tiny", "scale": 0.5}):
        recipe = recipes.check(make_recipe(network=network, start=start))
        model = recipes.network(recipe, 5)
        if "scale" in start:
            with pytest.raises(ValueError, match="with a scale: the threshold of snu is not"):
                transfer.start(recipe, model, content)
        else:
            transfer.start(recipe, model, content)
            source = presets.load("tiny", content=content)
            np.testing.assert_array_equal(model.get_weights()[0], source.get_weights()[0])


@pytest.mark.slow
def test_start_and_teacher_are_told_in_the_results_and_on_the_card(small_zoo, tmp_path):
    content = tmp_path / "content"
    shutil.copytree(small_zoo[0], content)
    start, teacher = {"model": "tiny", "scale": 0.5}, {"model": "tiny", "weight": 0.3}
    results = _train(content, tmp_path, start=start, teacher=teacher, published=True)
    sha256 = presets.info("tiny", content)["files"]["model.weights.h5"]["sha256"]
    assert results["seeds"][0]["start_sha256"] == sha256
    assert results["seeds"][0]["teacher_sha256"] == sha256
    card = (content / "next" / "README.md").read_text("utf-8")
    assert '- start: model "tiny", scale 0.5' in card
    assert '- teacher: model "tiny", weight 0.3' in card


@pytest.mark.slow
def test_a_teacher_changes_the_training(small_zoo, tmp_path):
    content = tmp_path / "content"
    shutil.copytree(small_zoo[0], content)
    alone = _train(content, tmp_path / "alone")
    taught = _train(content, tmp_path / "taught", teacher={"model": "tiny"})
    assert alone["seeds"][0]["valid"] != taught["seeds"][0]["valid"]


@pytest.mark.slow
@pytest.mark.parametrize("key", ["start", "teacher"])
def test_a_training_does_not_go_on_with_other_weights(small_zoo, tmp_path, key):
    content = tmp_path / "content"
    shutil.copytree(small_zoo[0], content)
    shutil.copytree(content / "tiny", content / "other")
    path = content / "other" / "preset.json"
    preset = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**preset, "name": "other"}), "utf-8")
    changes = {key: {"model": "other"}}
    first = _train(content, tmp_path, **changes)
    assert _train(content, tmp_path, **changes) == first
    preset = json.loads((content / "other" / "preset.json").read_text("utf-8"))
    preset["files"]["model.weights.h5"]["sha256"] = "0" * 64
    (content / "other" / "preset.json").write_text(json.dumps(preset), "utf-8")
    with pytest.raises(ValueError, match="another start or teacher"):
        _train(content, tmp_path, **changes)


def _train(content, folder, published=False, **changes):
    """Train a model "next" beside those of the folder."""
    write_recipe(content, name="next", seeds=[0], **changes)
    run = publish.train_and_publish if published else training.train
    return run(
        "next",
        content,
        folder / "runs",
        progress=lambda event: None,
        tasks={"scales": make_task()},
    )


def _with_units(**changes):
    network = make_recipe()["network"]
    snu, *others = network["layers"]
    return {**network, "layers": [{**snu, **changes}, *others]}
