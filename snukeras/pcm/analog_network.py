"""A Keras model whose matrix products run through tiles with converters."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._strategy import known, on_jax, outside_of_graphs, tell
from snukeras._types import Config, Nested
from snukeras.network import products
from snukeras.network.matrices import Matrix, digital_kernels, leaves, matrices
from snukeras.network.models import copy_model
from snukeras.pcm.devices import InferencePCM
from snukeras.pcm.modifiers import WeightModifier
from snukeras.pcm.numbered_loops import NumberedLoop
from snukeras.pcm.pairs import DifferentialPair
from snukeras.pcm.tiled_product import TiledProduct
from snukeras.pcm.tiles import Tile, get_tile


def analog(
    model: keras.Model,
    tile: str | Tile = "generic8",
    device: InferencePCM | None = None,
    seed: int | None = None,
    pair: DifferentialPair | None = None,
    modifiers: WeightModifier | Sequence[WeightModifier] = (),
    output_scales: bool = False,
    learned_clip: bool = False,
) -> "AnalogNetwork":
    """Return a model with the same weights whose matrix products run through tiles.

        net = snukeras.pcm.analog(model, tile="generic8")
        snukeras.pcm.calibrate(net, x)
        net.evaluate(x, y)

    Args:
        model: a built Keras model: Sequential, functional or a subclass that can be made again from
            its config. It is copied, and compiled if it was.
        tile: the kind of tile, see `get_tile`.
        device: InferencePCM, whose read noise each product then has, at the reference reading; a
            device programmed and drifted is the matter of `Chip`. None: products without it.
        seed: int or None, of the noise.
        pair: DifferentialPair that holds a weight; default one of the device's range, or 25 uS,
            with a range for each column. Its `clip` and `levels` act in each product.
        modifiers: what changes the weights of training steps, one after the other.
        output_scales: whether each column has a digital factor behind its converter that is
            trained with the weights (see `AnalogNetwork.remap`).
        learned_clip: whether training finds where the weights of each column are clipped, which is
            then the weight that the largest conductance stands for; at first the largest there is.

    Raises:
        TypeError, ValueError: not a built Keras model, a model that is analog already, a model
            without matrices that tiles can multiply by, `learned_clip` with a clip of the pair,
            arguments of another kind.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: {type(model).__name__}")
    if isinstance(model, AnalogNetwork):
        raise ValueError(
            "`model` must not be analog already. Received: an AnalogNetwork; take its plain model "
            "by `digital()` first."
        )
    if not model.built:
        raise ValueError(
            "`model` must be a built model. Received: one without weights; call it or fit it once."
        )
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            "`model` must be trained by Keras's own train_step, which the analog network has. "
            f"Received: {type(model).__name__}, which has one of its own."
        )
    chosen = [modifiers] if isinstance(modifiers, WeightModifier) else list(modifiers)
    _check_kinds(device, pair, chosen)
    if seed is not None:
        _arguments.whole("seed", seed, minimum=0)
    if left := _digital(model):
        warnings.warn(
            f"These weights stay digital: {', '.join(left)}. Their layers do not say how they "
            "multiply by them (see snukeras.network.products).",
            stacklevel=2,
        )
    net = AnalogNetwork(
        copy_model(model, compiled=False),
        get_tile(tile),
        device,
        seed=seed,
        pair=pair,
        modifiers=chosen,
        output_scales=output_scales,
        learned_clip=learned_clip,
    )
    net.reset_limits()
    if getattr(model, "compiled", False):
        net.compile_from_config(model.get_compile_config())
    return net


@keras.saving.register_keras_serializable(package="snukeras")
class AnalogNetwork(keras.Model):
    """A network on tiles: the layers of a Keras model, with other products.

    It is made by `snukeras.pcm.analog`, and is an ordinary Keras model: it has the layers of the
    model, with their names and weights, and beside them the ranges of the converters as weights.

    Args:
        network: the plain model, which the analog one takes over: its layers compute on tiles then.
        tile: the kind of tile.
        device: InferencePCM or None.
        programmed: whether a `Chip` sets what the devices hold.
        seed: int or None.
        pair: DifferentialPair or None.
        modifiers: list of WeightModifier.
        output_scales: whether each column has a digital factor that is trained.
        learned_clip: whether training finds where the weights of each column are clipped.
        name: of the model; by default that of the network.

    Attributes:
        network: the layers that compute on tiles, as a model.
        tiles: the TiledProduct of each matrix, in the order of the layers.

    Raises:
        ValueError: the model has no matrix that tiles can multiply by; `learned_clip` and a pair
            that clips.
    """

    def __init__(
        self,
        network: keras.Model,
        tile: Tile,
        device: InferencePCM | None = None,
        programmed: bool = False,
        seed: int | None = None,
        pair: DifferentialPair | None = None,
        modifiers: Sequence[WeightModifier] = (),
        output_scales: bool = False,
        learned_clip: bool = False,
        name: str | None = None,
    ) -> None:
        if learned_clip and pair is not None and (pair.clip is not None or pair.scale != "column"):
            raise ValueError(
                "`learned_clip` needs a pair with scale='column' and without a clip of its own. "
                f"Received: {pair!r}"
            )
        super().__init__(name=name or network.name)
        self.supports_masking = True
        self.network = network
        self.tile, self.device, self.programmed, self.seed = tile, device, programmed, seed
        self.pair, self.modifiers = pair, tuple(modifiers)
        self.output_scales, self.learned_clip = output_scales, learned_clip
        self.tiles = _install(self)
        # Whether all ranges were seen to be known; then none is checked again.
        self._ready = False
        if getattr(network, "output_names", None):
            self.output_names = network.output_names
        self.built = True

    @property
    def layers(self) -> list[keras.Layer]:
        """The layers of the network."""
        return self.network.layers

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """The symbolic inputs of the network, if it has a topology."""
        return self.network.inputs

    @property
    def outputs(self) -> list[keras.KerasTensor]:
        """The symbolic outputs of the network, if it has a topology."""
        return self.network.outputs

    def digital(self) -> keras.Model:
        """Return the plain model, with a copy of the weights; compiled if this one is.

        Output scales are in its weights, which are clipped at learned limits.
        """
        plain = copy_model(self.network, compiled=False)
        products = self.products()
        for matrix in matrices(plain) if self.learned_clip else ():
            if matrix.name in products:
                matrix.variable.assign(self.clipped(matrix))
        for matrix in matrices(plain) if self.output_scales else ():
            if matrix.name in products:
                _scale_columns(matrix, ops.convert_to_numpy(products[matrix.name].scale))
        if getattr(self, "compiled", False):
            plain.compile_from_config(self.get_compile_config())
        return plain

    def on_chip(self, seed: int | None = None) -> "AnalogNetwork":
        """Return a copy whose devices a `Chip` programs: see `Chip.model` and `Chip.write`."""
        copy = AnalogNetwork(
            copy_model(self.network, compiled=False),
            self.tile,
            self.device,
            True,
            seed,
            self.pair,
            output_scales=self.output_scales,
            name=self.name,
        )
        for mine, other in zip(self.tiles, copy.tiles, strict=True):
            for name in ("input_range", "output_range", "scale"):
                if getattr(mine, name) is not None:
                    # JAX would share the array, and give its memory away with the copy's state.
                    getattr(other, name).assign(ops.copy(getattr(mine, name)))
        if getattr(self, "compiled", False):
            copy.compile_from_config(self.get_compile_config())
        return copy

    def reset_limits(self) -> None:
        """Let learned limits of weights be the largest |weight| of each column, as at first."""
        products = self.products()
        for matrix in _on_tiles(self):
            products[matrix.name].reset_limit(ops.convert_to_tensor(matrix.variable))

    def clipped(self, matrix: Matrix) -> np.ndarray:
        """Return a weight of this network, or of a copy, as its learned limits clip it."""
        values = ops.convert_to_numpy(matrix.variable)
        limit = self.products()[matrix.name].limit
        if limit is None:
            return values
        limit = ops.convert_to_numpy(limit)
        flat = np.clip(matrix.unrolling.matrix(values), -limit, limit)
        return matrix.unrolling.weight(flat, values.shape)

    def remap(self, largest: float = 1.0) -> None:
        """Let the largest |weight| of each column be `largest`; output scales take the rest.

        The network computes the same. Weights of columns that have become small, or large, are of
        one size for the optimizer again.

        Args:
            largest: the largest |weight| of each column, in the units of the weights.

        Raises:
            ValueError: a network without output scales.
        """
        largest = _arguments.number("largest", largest, above=0.0)
        if not self.output_scales:
            raise ValueError(
                "`remap` needs a network with output scales, which take what it moves out of the "
                "weights. Received: a network of analog(..., output_scales=False)"
            )
        products = self.products()
        for matrix in _on_tiles(self):
            scale = products[matrix.name].scale
            assert scale is not None
            values = matrix.unrolling.matrix(ops.convert_to_numpy(matrix.variable))
            top = np.abs(values).max(axis=0)
            factor = np.where(top > 0, top / largest, 1.0)
            _scale_columns(matrix, 1.0 / factor)
            scale.assign(ops.convert_to_numpy(scale) * factor)
            limit = products[matrix.name].limit
            if limit is not None:
                limit.assign(ops.convert_to_numpy(limit) / factor)

    def products(self) -> dict[str, TiledProduct]:
        """Return the tiles of each matrix by its name, as `snukeras.network.matrices` gives it."""
        return {tiles.matrix_name: tiles for tiles in self.tiles}

    def call(self, inputs: Nested, training: bool | None = None, mask: Nested = None) -> Nested:
        # Also where the function of a model around this one is traced.
        with outside_of_graphs():
            self.check_calibrated()
        if on_jax() and not self._ready:
            self._check_when_it_runs()
        try:
            for tiles in self.tiles:
                tiles.in_training = bool(training)
            given = {} if mask is None else {"mask": mask}
            return self.network(inputs, training=training, **given)
        finally:
            for tiles in self.tiles:
                tiles.in_training = False

    def compute_mask(self, inputs: Nested, previous_mask: Nested) -> None:
        """Return None: outputs bear the masks that the layers gave them."""

    def compute_output_spec(
        self, inputs: Nested, training: bool | None = None, mask: Nested = None
    ) -> Nested:
        return self.network.compute_output_spec(inputs)

    def make_train_function(self, force: bool = False) -> Callable[..., Nested]:
        self.check_calibrated()
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Callable[..., Nested]:
        self.check_calibrated()
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Callable[..., Nested]:
        self.check_calibrated()
        return super().make_predict_function(force)

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Nested = None,
        **options: Any,
    ) -> None:
        """Write what the network computes on tiles, as `keras.Model.export` does for any model.

        Args:
            filepath, format, verbose, **options: as there.
            input_signature: as there; by default the inputs of the plain model.

        Raises:
            ValueError: a network without ranges; one whose products have noise, in a format that
                holds no random numbers; a subclass of Model that does not say what it takes.
        """
        self.check_calibrated()
        if keras.backend.backend() != "tensorflow" and any(tiles.draws for tiles in self.tiles):
            raise ValueError(
                "The products of this network have noise, and a file written on "
                f"{keras.backend.backend()} holds no random numbers. Export `digital()`, or a "
                "network on tiles without noise, or a SavedModel on TensorFlow."
            )
        if input_signature is None:
            input_signature = self._signature()
        super().export(filepath, format, verbose, input_signature, **options)

    def _signature(self) -> Nested:
        """Return the inputs of the plain model, as `export` takes them."""
        network = self.network
        if getattr(network, "inputs", None):
            # Of a dict, or whatever structure a functional model takes.
            taken = network.inputs if isinstance(network, keras.Sequential) else [network.input]
            return keras.tree.map_structure(
                lambda tensor: keras.InputSpec(tensor.dtype, tensor.shape), taken
            )
        shape = (network.get_build_config() or {}).get("input_shape")
        if not shape or isinstance(shape[0], list | tuple):
            raise ValueError(
                f"The model {network.name!r} does not say what it takes. Give `input_signature`, a "
                "list with a keras.InputSpec for each argument of its `call`."
            )
        return [keras.InputSpec(network.input_dtype, (None, *shape[1:]))]

    def quantize(self, *_: Any, **__: Any) -> None:
        """Raise ValueError: weights on tiles are analog."""
        raise ValueError(
            "A network on tiles multiplies by analog weights, which no integers replace. Quantize "
            "the plain model, `digital()`, or give the pair of devices `levels`."
        )

    def check_calibrated(self) -> None:
        """Raise ValueError if the ranges of converters are still unknown."""
        missing = [
            tiles.matrix_name
            for tiles in self.tiles
            if tiles.observer is None and tiles.uncalibrated
        ]
        if missing:
            raise ValueError(_without_ranges(missing))
        if any(tiles.observer is not None for tiles in self.tiles):
            self._ready = False
        elif all(known(variable) for tiles in self.tiles for variable in tiles.ranges):
            self._ready = True

    def _check_when_it_runs(self) -> None:
        """Check ranges when a function runs that JAX compiles for a model around this one.

        JAX wraps the error in one of its own, which repeats the message.
        """
        for tiles in self.tiles:
            unknown = [v for v in tiles.ranges if tiles.observer is None and not known(v)]
            for variable in unknown:
                missing = ops.any(ops.isnan(ops.convert_to_tensor(variable)))
                tell(partial(_refuse, tiles.matrix_name), missing)

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            "network": serialize(self.network),
            "tile": self.tile.get_config(),
            "device": None if self.device is None else serialize(self.device),
            "programmed": self.programmed,
            "seed": self.seed,
            "pair": None if self.pair is None else serialize(self.pair),
            "modifiers": [serialize(modifier) for modifier in self.modifiers],
            "output_scales": self.output_scales,
            "learned_clip": self.learned_clip,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: Config | None = None) -> Self:
        def read(part: Config) -> Nested:
            return keras.saving.deserialize_keras_object(part, custom_objects=custom_objects)

        return cls(
            read(config["network"]),
            Tile.from_config(config["tile"]),
            read(config["device"]),
            config["programmed"],
            config["seed"],
            read(config["pair"]),
            [read(modifier) for modifier in config["modifiers"]],
            config.get("output_scales", False),
            config.get("learned_clip", False),
            config["name"],
        )


def _without_ranges(names: Sequence[str]) -> str:
    return (
        f"The converters of {', '.join(names)} have no ranges yet. Find them by "
        "snukeras.pcm.calibrate(net, x) with typical inputs, or give a tile with fixed ranges."
    )


def _refuse(name: str, missing: np.ndarray) -> None:
    if missing:
        raise ValueError(_without_ranges([name]))


def _check_kinds(device: object, pair: object, modifiers: Sequence[object]) -> None:
    """Raise ValueError for what is no device, pair or modifier."""
    for name, value, kind in (
        ("device", device, InferencePCM),
        ("pair", pair, DifferentialPair),
        *(("modifiers", modifier, WeightModifier) for modifier in modifiers),
    ):
        if value is not None and not isinstance(value, kind):
            raise ValueError(
                f"`{name}` must be of snukeras.pcm.{kind.__name__}. Received: {value!r}"
            )


def _scale_columns(matrix: Matrix, factors: np.ndarray) -> None:
    """Multiply each column of a matrix, as it lies on tiles, by a number."""
    values = matrix.unrolling.matrix(ops.convert_to_numpy(matrix.variable)) * factors
    shape = tuple(matrix.variable.shape)
    matrix.variable.assign(matrix.unrolling.weight(values, shape))


def _on_tiles(model: keras.Model) -> Iterator[Matrix]:
    """Yield the matrices whose products tiles can compute."""
    for matrix in matrices(model):
        if matrix.role in products.replaceable(matrix.layer):
            yield matrix


def _digital(model: keras.Model) -> list[str]:
    """Return the weights that tiles do not multiply by, though they are matrices."""
    there = {matrix.name for matrix in _on_tiles(model)}
    left = [matrix.name for matrix in matrices(model) if matrix.name not in there]
    return left + digital_kernels(model)


def _number_loops(net: AnalogNetwork, by_layer: dict[int, list[TiledProduct]]) -> None:
    """Let each step of a loop have noise of its own on JAX; tiles are given by id of the layer."""
    output = net.tile.output
    noisy = net.device is not None or net.programmed or bool(net.modifiers)
    if not on_jax() or not (noisy or (output is not None and output.noise > 0)):
        return
    for _, layer in leaves(net):
        if isinstance(layer, keras.layers.RNN) and not layer.unroll:
            tiles = [each for _, part in leaves(layer) for each in by_layer.get(id(part), ())]
            layer.inner_loop = NumberedLoop(layer, [each.generator for each in tiles])


def _install(net: AnalogNetwork) -> list[TiledProduct]:
    """Let tiles compute the products of a network, and return them."""
    found = list(_on_tiles(net))
    if not found:
        raise ValueError(
            f"`model` must have matrices that tiles can multiply by. Received: {net.name!r}, which "
            "has none."
        )
    seeds = np.random.SeedSequence(net.seed).generate_state(len(found))
    made: list[TiledProduct] = []
    by_layer: dict[int, tuple[keras.Layer, dict[str, products.Product]]] = {}
    of_layer: dict[int, list[TiledProduct]] = {}
    for matrix, own in zip(found, seeds, strict=True):
        tiles = TiledProduct(
            matrix.shape,
            matrix.unrolling,
            net.tile,
            net.device,
            net.programmed,
            int(own >> 1),
            net.pair,
            net.modifiers,
            net.output_scales,
            net.learned_clip,
            name="tiles_" + matrix.name.replace("/", "_"),
        )
        tiles.matrix_name = matrix.name
        made.append(tiles)
        by_layer.setdefault(id(matrix.layer), (matrix.layer, {}))[1][matrix.role] = tiles.multiply
        of_layer.setdefault(id(matrix.layer), []).append(tiles)
    for layer, roles in by_layer.values():
        products.install(layer, roles)
    for _, layer in leaves(net):
        # Their fast path on a GPU would pass the tiles by.
        if getattr(layer, "use_cudnn", None):
            layer.use_cudnn = False
    _number_loops(net, of_layer)
    return made
