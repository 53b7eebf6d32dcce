"""What a training takes from a pretrained model: the weights it starts from, and a teacher."""

from pathlib import Path
from typing import TYPE_CHECKING

from snukeras.zoo import presets
from snukeras.zoo.recipes import Recipe

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def start(recipe: Recipe, model: "keras.Model", content: Path | str | None = None) -> None:
    """Give a network the weights of the pretrained model that its recipe starts from, if any.

    Layers with weights are paired in their order, so a soft unit can start a spiking one. `scale`
    multiplies kernels, biases and thresholds of the units: with a linear or ReLU g a spiking layer
    computes the same, but its pseudo-derivative acts on potentials of another size.

    Args:
        recipe: A checked recipe.
        model: Its network.
        content: Folder of presets. Default: the one that ships with the package.

    Raises:
        ValueError: No such pretrained model, its weights do not fit, or a scale for units whose
            threshold is no weight and so keeps its size.
    """
    if recipe.start is None:
        return
    from snukeras.layers import SNU

    name, scale = recipe.start["model"], recipe.start.get("scale", 1.0)
    source = presets.load(name, content=content)
    refusal = f"The recipe {recipe.name} cannot start from {name}"
    old, new = ([layer for layer in made.layers if layer.weights] for made in (source, model))
    has, needs = ([_shapes(layer) for layer in layers] for layers in (old, new))
    if has != needs:
        raise ValueError(f"{refusal}: it has layers with the weights {has}, the recipe {needs}.")
    for layer, values in zip(new, (layer.get_weights() for layer in old), strict=True):
        units = isinstance(layer, SNU) and scale != 1.0
        if units and "threshold" not in _shapes(layer):
            raise ValueError(
                f"{refusal} with a scale: the threshold of {layer.name} is not trained, so it is "
                "not among the weights that are scaled."
            )
        layer.set_weights(
            [
                value * scale if units and weight.name != "decay" else value
                for weight, value in zip(layer.weights, values, strict=True)
            ]
        )


def sources(recipe: Recipe, content: Path | str | None = None) -> dict[str, str]:
    """Return the sha256 of the weights behind a recipe's `start` and `teacher`, where it has them.

    Raises:
        ValueError: No such pretrained model.
    """
    given = {"start": recipe.start, "teacher": recipe.teacher}
    models = {key: entry["model"] for key, entry in given.items() if entry is not None}
    return {
        f"{key}_sha256": presets.info(name, content)["files"][presets.WEIGHTS]["sha256"]
        for key, name in models.items()
    }


def taught(
    recipe: Recipe, data: "tf.data.Dataset", content: Path | str | None = None
) -> "tf.data.Dataset":
    """Mix what the recipe's teacher predicts, if it has one, into the targets of its training data.

    Knowledge distillation: targets are `weight` times the prediction of a pretrained model plus
    the rest of the data's own (Hinton et al. 2015, arXiv 1503.02531, at temperature 1).

    Args:
        recipe: A checked recipe.
        data: Batches of inputs, targets and, perhaps, sample weights.
        content: Folder of presets. Default: the one that ships with the package.

    Raises:
        ValueError: No such pretrained model, or one whose predictions do not fit the targets.
    """
    if recipe.teacher is None:
        return data
    name, weight = recipe.teacher["model"], recipe.teacher.get("weight", 1.0)
    teacher = presets.load(name, content=content)

    def mixed(
        x: "tf.Tensor", y: "tf.Tensor", *sample_weights: "tf.Tensor"
    ) -> "tuple[tf.Tensor, ...]":
        prediction = teacher(x, training=False)
        if len(prediction.shape) != len(y.shape) or prediction.shape[-1] != y.shape[-1]:
            raise ValueError(
                f"The recipe {recipe.name} has the teacher {name}, whose predictions of shape "
                f"{tuple(prediction.shape)} do not fit targets of shape {tuple(y.shape)}."
            )
        return (x, (1.0 - weight) * y + weight * prediction, *sample_weights)

    return data.map(mixed, deterministic=True).prefetch(2)


def _shapes(layer: "keras.Layer") -> dict[str, tuple[int, ...]]:
    return {weight.name: tuple(weight.shape) for weight in layer.weights}
