"""Recipes: what is refused, and what the Keras objects made from them are."""

import json

import keras
import numpy as np
import pytest
from tiny_zoo import make_recipe, write_recipe

from snukeras.constraints import PCMConstraint
from snukeras.layers import SNU
from snukeras.optimizers import PCMOptimizer
from snukeras.pcm import HermesPCM
from snukeras.zoo import recipes
from snukeras.zoo.tasks import TASKS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "blue"}, "unknown entries colour"),
        ({"format": 2}, "format 2"),
        ({"epochs": 0}, "`epochs`.*Received: 0"),
        ({"batch_size": 2.5}, "`batch_size`.*Received: 2.5"),
        ({"ties": "any"}, "`ties`.*Received: 'any'"),
        ({"seeds": []}, "`seeds`"),
        ({"seeds": [1, 1]}, "`seeds`.*different"),
        ({"schedule": {"class": "steps"}}, "`schedule`"),
        ({"schedule": {"class": "cosine", "warmup": 3}}, "`schedule`.*warmup_epochs"),
        ({"averaging": {"class": "mean"}}, "`averaging`"),
        ({"averaging": {"class": "ema"}}, "`averaging`.*momentum"),
        ({"start": "tiny"}, "`start`.*Received: 'tiny'"),
        ({"start": {"scale": 2.0}}, "`start`.*Received"),
        ({"start": {"model": "tiny", "scale": 0}}, "`start`.*a scale above 0"),
        ({"start": {"model": "tiny", "scale": float("inf")}}, "`start`.*Received"),
        ({"start": {"model": "tiny", "epoch": 3}}, "`start`.*'epoch': 3"),
        (
            {"teacher": {"model": "tiny", "weight": 1.5}},
            "`teacher`.*a weight above 0 and at most 1",
        ),
        ({"teacher": {"weight": 0.5}}, "`teacher`.*Received"),
        ({"constraint": 8}, "`constraint`.*Received: 8"),
        ({"noise": 0.1}, r"`noise`.*Received: 0\.1"),
        ({"devices": 0.5, "averaging": None}, r"`devices`.*Received: 0\.5"),
        ({"devices": {}}, "`averaging` must be null with `devices`"),
        ({"optimizer": "Adam"}, r"`optimizer` must be an object\. Received: 'Adam'"),
        ({"padding": 3}, r"`padding` must be a list or null\. Received: 3"),
        ({"network": {"input_shape": 3, "layers": []}}, "`input_shape` must be a list"),
        ({"padding": [8, None]}, r"`padding`: entry 1 must be an integer\. Received: None"),
        ({"seeds": [-1]}, r"`seeds`.*from 0 to.*Received: \[-1\]"),
        ({"averaging": {"class": ["ema"]}}, "`averaging` must be null or of class"),
        ({"averaging": {"class": "ema", "momentum": "1"}}, "`momentum` must be a number"),
        ({"schedule": {"class": "cosine", "final": None}}, "`final` must be a number"),
        ({"schedule": {"class": "cosine"}, "optimizer": {"class": "Adam"}}, "`learning_rate`"),
        ({"optimizer": {}}, "`optimizer` has to hold `class`"),
        ({"optimizer": {"class": "Adam", "learning_rate": [None]}}, "`learning_rate` must be a"),
        ({"network": {"input_shape": [-1], "layers": []}}, "sizes or null"),
        ({"network": {"input_shape": [3], "layers": []}}, "name a layer"),
        ({"network": {"input_shape": [3], "layers": ["Dense"]}}, "layer 0 .*Received: 'Dense'"),
        ({"network": {"input_shape": [3], "layers": [{"units": 3}]}}, "layer 0 .*`class` or"),
        ({"network": {"input_shape": [3], "layers": [{"class": 3}]}}, "layer 0 .*Received"),
        ({"network": {"input_shape": [3], "layers": [{"class": "A", "name": 1}]}}, "a text"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipes.check(make_recipe(**changes))


def test_missing_entries():
    recipe = make_recipe()
    del recipe["task"], recipe["network"]
    with pytest.raises(ValueError, match="lacks task, network"):
        recipes.check(recipe)


def test_read(tmp_path):
    write_recipe(tmp_path)
    recipe = recipes.read("tiny", tmp_path)
    assert recipe.patience is None and recipe.loss == {}
    with pytest.raises(ValueError, match=r"no recipe named 'tin'. Did you mean tiny\?"):
        recipes.read("tin", tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "recipe.json").write_text(json.dumps(make_recipe()))
    with pytest.raises(ValueError, match=r"`name` must be 'other'\. Received: 'tiny'"):
        recipes.read("other", tmp_path)


def test_published_names_a_figure(tmp_path):
    write_recipe(tmp_path, published="a-song")
    with pytest.raises(ValueError, match=r"`published`.*Received: 'a-song'"):
        recipes.read("tiny", tmp_path)
    assert "published" not in recipes.check(make_recipe()).record()


def test_network():
    recipe = recipes.check(make_recipe())
    model = recipes.network(recipe, seed=3)
    assert model.name == "tiny"
    assert [layer.name for layer in model.layers] == ["snu", "dropout", "dense"]
    assert model.inputs[0].name == "roll"
    snu = model.layers[0]
    assert type(snu) is SNU and snu.units == 6
    decay = snu.cell.decay_values()
    assert decay.min() >= 0.3 and decay.max() <= 0.9 and len(set(decay.tolist())) == 6
    np.testing.assert_array_equal(decay, recipes.network(recipe, 3).layers[0].cell.decay_values())
    assert not np.array_equal(decay, recipes.network(recipe, 4).layers[0].cell.decay_values())


def test_even_spread_and_repeated_layers():
    layers = [
        {"class": "SSNU", "units": 5, "decay": {"linspace": [0, 1]}, "return_sequences": True},
        {"class": "Dense", "units": 7},
        {"class": "Dense", "units": 7, "kernel_regularizer": {"class_name": "L2", "config": {}}},
    ]
    recipe = make_recipe(network={"input_shape": [None, 3], "layers": layers})
    model = recipes.network(recipes.check(recipe), 0)
    np.testing.assert_allclose(model.layers[0].cell.decay_values(), [0, 0.25, 0.5, 0.75, 1])
    assert [layer.name for layer in model.layers] == ["ssnu", "dense", "dense_2"]
    assert isinstance(model.layers[2].kernel_regularizer, keras.regularizers.L2)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"class": "Dens", "units": 3}, "'Dens'"),
        ({"class": "Dense", "unit": 3}, "layer dense: .*unit"),
        ({"class": "SNU", "units": 3, "decay": {"normal": [0, 1]}}, "spread.*normal"),
        ({"class": "SNU", "units": 3, "decay": {"uniform": 1}}, "spread.*Received"),
        ({"class": "SNU", "decay": {"uniform": [0, 1]}}, "its network: KeyError: 'units'"),
        ({"class": "SNU", "units": 3, "decay": {"uniform": [0, "1"]}}, "spread.*Received"),
        ({"class": "SNU", "units": 3, "decay": 1.5}, "layer snu: .*decay"),
    ],
)
def test_bad_layer(layer, message):
    recipe = make_recipe(network={"input_shape": [None, 3], "layers": [layer]})
    with pytest.raises(ValueError, match=message):
        recipes.network(recipes.check(recipe), 0)


def test_cosine_with_warm_up():
    recipe = recipes.check(
        make_recipe(epochs=10, schedule={"class": "cosine", "warmup_epochs": 2, "final": 0.1})
    )
    made = recipes.optimizer(recipe, steps_per_epoch=5)
    for step, expected in ((0, 0.0), (5, 0.025), (10, 0.05), (30, 0.0275), (50, 0.005)):
        made.iterations.assign(step)
        np.testing.assert_allclose(made.learning_rate, expected, atol=1e-6)


def test_optimizer():
    recipe = make_recipe(
        schedule=None,
        optimizer={
            "class": "AdamW",
            "learning_rate": 0.1,
            "weight_decay": 0.5,
            "exclude_from_weight_decay": ["bias", "threshold", "decay"],
        },
    )
    recipe = recipes.check(recipe)
    made = recipes.optimizer(recipe, 5)
    assert isinstance(made, keras.optimizers.AdamW) and made.use_ema and made.ema_momentum == 0.5
    model = recipes.network(recipe, 0)
    before = {v.path: v.numpy() for v in model.trainable_variables}
    made.build(model.trainable_variables)
    made.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    changed = {v.name for v in model.trainable_variables if (v.numpy() != before[v.path]).any()}
    assert changed == {"kernel"}


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"class": "Adamm", "learning_rate": 0.1}, "'Adamm'"),
        ({"class": "Adam", "learning_rate": 0.1, "colour": 1}, "optimizer: .*colour"),
    ],
)
def test_bad_optimizer(optimizer, message):
    recipe = recipes.check(make_recipe(optimizer=optimizer))
    with pytest.raises(ValueError, match=message):
        recipes.optimizer(recipe, 5)


def test_constraint_of_all_kernels():
    layers = [
        {"class": "SNU", "units": 5, "recurrent": True, "return_sequences": True},
        {"class": "Dense", "units": 7, "kernel_constraint": None},
        {"class": "Dense", "units": 7},
    ]
    recipe = recipes.check(
        make_recipe(network={"input_shape": [None, 3], "layers": layers}, constraint={"levels": 8})
    )
    model = recipes.network(recipe, 1)
    snu, plain, constrained = model.layers
    found = [
        snu.cell.kernel.constraint,
        snu.cell.recurrent_kernel.constraint,
        constrained.kernel.constraint,
    ]
    assert all(isinstance(one, PCMConstraint) and one.levels == 8 for one in found)
    assert plain.kernel.constraint is None
    again = recipes.network(recipe, 1)
    assert found[0].seed == again.layers[0].cell.kernel.constraint.seed
    assert len({one.seed for one in found}) == 3
    with pytest.raises(ValueError, match="layer snu: Argument `levels`"):
        recipes.network(recipe.changed(constraint={"levels": 1}), 1)


def test_noise():
    assert recipes.noise(recipes.check(make_recipe()), 0) is None
    plain = recipes.noise(recipes.check(make_recipe(noise={"noise": 0.1, "scale": "column"})), 3)
    assert (plain.noise, plain.scale, plain.seed, plain.schedule) == (0.1, "column", 3, None)
    entry = {"noise": {"class": "HermesPCM", "read_noise": 0.0}, "time": 60.0, "ramp_epochs": 4}
    device = recipes.noise(recipes.check(make_recipe(noise=entry)), 0)
    assert isinstance(device.noise, HermesPCM) and device.noise.read_noise == 0.0
    assert device.time == 60.0 and [device.schedule(n) for n in (0, 1, 4, 9)] == [0, 0.25, 1, 1]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"noise": {"class": "PCM"}}, "'PCM'"),
        ({"noise": -1.0}, "noise: .*`noise`"),
        ({"strength": 1.0}, "noise: .*strength"),
    ],
)
def test_bad_noise(entry, message):
    with pytest.raises(ValueError, match=message):
        recipes.noise(recipes.check(make_recipe(noise=entry)), 0)


def test_devices_in_the_loop():
    recipe = recipes.check(make_recipe(averaging=None, devices={"w_max": 0.7}))
    made = recipes.optimizer(recipe, 5, seed=3)
    assert type(made) is PCMOptimizer and (made.w_max, made.seed) == (0.7, 3)
    assert type(made.inner_optimizer) is keras.optimizers.AdamW
    with pytest.raises(ValueError, match=r"cannot make its optimizer.*w_max"):
        recipes.optimizer(recipe.changed(devices={"w_max": -1.0}), 5)


DENSE = {"class": "Dense", "units": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"constraint": {"levels": 8}, "layers": [{"class": "Kernels"}, DENSE]},
            "`constraint` that does not reach tiny/kernels/kernel",
        ),
        ({"noise": {}, "layers": [{"class": "Dropout", "rate": 0.5}]}, "no kernels"),
        (
            {
                "optimizer": {
                    "class": "AdamW",
                    "learning_rate": 0.05,
                    "exclude_from_weight_decay": ["bais", "decay"],
                },
                "layers": [DENSE],
            },
            r"Received: \['bais', 'decay'\]. There are: bias, kernel",
        ),
        ({"network": {"input_shape": [3], "layers": [DENSE], "input_type": "int32"}}, "input_type"),
        (
            {"optimizer": {"class": "SGD", "exclude_from_weight_decay": ["bias"]}},
            "needs a `weight_decay`",
        ),
    ],
)
def test_an_entry_that_lands_nowhere_is_refused(changes, message, monkeypatch):
    class Kernels(keras.layers.Layer):
        """Hides its arguments, as a layer with **kwargs does."""

        tile_matrices = ("kernel",)

        def __init__(self, **kwargs):
            super().__init__(**kwargs)

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

        def call(self, x):
            return x @ self.kernel

    monkeypatch.setattr(keras.layers, "Kernels", Kernels, raising=False)
    layers = changes.pop("layers", [DENSE])
    changes = {"network": {"input_shape": [3], "layers": layers}, **changes}
    with pytest.raises(ValueError, match=message):
        recipes.network(recipes.check(make_recipe(**changes)), 0)


def test_a_layer_without_a_constraint_says_so():
    layers = [{**DENSE, "kernel_constraint": None}, DENSE]
    recipe = make_recipe(
        network={"input_shape": [3], "layers": layers}, constraint={"levels": 8, "w_max": 1.0}
    )
    first, second = recipes.network(recipes.check(recipe), 0).layers
    assert first.kernel_constraint is None and isinstance(second.kernel_constraint, PCMConstraint)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": {"class": "cosine", "warmup_epochs": 5}},
        {"averaging": {"class": "swa", "first_epoch": 5}},
    ],
)
def test_an_epoch_that_never_comes_is_refused(changes, tmp_path):
    write_recipe(tmp_path, **changes)
    with pytest.raises(ValueError, match="4 epochs do not go beyond"):
        recipes.read("tiny", tmp_path)


def test_an_entry_of_another_task_is_refused():
    words = TASKS["penn_treebank"]
    with pytest.raises(ValueError, match="penn_treebank does not use: padding, teacher"):
        words.check(recipes.check(make_recipe(teacher={"model": "tiny"})))
    with pytest.raises(ValueError, match="mnist does not use: data"):
        TASKS["mnist"].check(recipes.check(make_recipe(data={"window": 3}, padding=None)))
    with pytest.raises(ValueError, match="`exact_epochs` needs `candidates`"):
        words.steps_per_epoch(recipes.check(make_recipe(data={"exact_epochs": 2})))
