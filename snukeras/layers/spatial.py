"""Networks in space: neurons with trainable positions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self, Unpack

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arguments import LayerArguments
from snukeras._types import Config, Shape, Tensor
from snukeras.network.matrices import digital_kernels, matrices
from snukeras.regularizers import proximity, transport


class Connection(NamedTuple):
    """The weights between two layers of neurons, or within one."""

    source: str  # name of the layer that the inputs come from
    target: str  # name of the layer whose weights they are
    recurrent: bool  # whether it is the recurrent kernel, then source and target are the same


@keras.saving.register_keras_serializable(package="snukeras")
class Spatial(keras.Model):
    """A network whose neurons have positions, which train with its weights.

        model = Spatial(network, proximity=1.0, transport=1.0)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y)
        tasks = model.split([0] * 10 + [1] * 10)
        network_of_task = model.part(tasks, 0)

    To the loss are added, with positions p, weights w and layers l (arXiv 1910.02776):

        proximity * mean_l mean_ij exp(-|p_i - p_j|)                  within a layer
        + transport * mean_l mean_ij |w_ij|^power |p_i - p_j|         between consecutive layers

    so neurons of a layer keep away from each other, and neurons that are wired strongly come near
    each other. Neurons are the units of layers with kernels: of Dense, of convolutions (channels)
    and of recurrent layers, SNU and SSNU among them. The recurrent kernel of a layer costs
    transport too, as a connection of the layer with itself (not in the paper). Layers without
    kernels in between (Flatten, Dropout, pooling, ...) pass neurons on. The input has no positions.

    `network` itself stays the ordinary model: save, export or deploy that.

    Args:
        network: a built Sequential, or a functional model whose layers with kernels form a chain.
        proximity, transport: factors of the costs, alpha and beta of the paper; 0 leaves one out.
        power: 1 or 2.
        dimensions: of the space.
        seed: int or None, of the positions at the start, N(0, 1).

    Raises:
        TypeError, ValueError: not a built Keras model, layers with kernels that are of another kind
            or no chain, a factor that is negative, a power that is not 1 or 2.
    """

    def __init__(
        self,
        network: keras.Model,
        proximity: float = 1.0,
        transport: float = 1.0,
        power: int = 2,
        dimensions: int = 2,
        seed: int | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(**_arguments.of_keras(type(self), kwargs))
        if not isinstance(network, keras.Model) or not network.built:
            raise TypeError(
                "Argument `network` must be a Keras model that is built, such as Sequential with "
                f"an Input. Received: network={network!r}"
            )
        self.network = network
        self.proximity = _arguments.number("proximity", proximity, minimum=0.0)
        self.transport = _arguments.number("transport", transport, minimum=0.0)
        self.power = _arguments.choice("power", power, (1, 2))
        self.dimensions = _arguments.whole("dimensions", dimensions)
        self.seed = seed
        self._neurons = _layers_with_neurons(network)
        self._connections = _connections(network, self._neurons)
        random = keras.random.SeedGenerator(seed)
        self._positions = {
            name: self.add_weight(
                shape=(_units(layer), self.dimensions),
                name=f"positions_{name}",
                initializer=keras.initializers.RandomNormal(stddev=1.0, seed=random),
                trainable=bool(self.proximity or self.transport),
            )
            for name, layer in self._neurons.items()
        }
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if self.proximity:
            self.add_loss(self.proximity * self.proximity_cost())
        if self.transport and self._connections:
            self.add_loss(self.transport * self.transport_cost())
        return self.network(inputs, training=training)

    def proximity_cost(self) -> Tensor:
        """Return the cost of crowding, a scalar, without its factor."""
        costs = [proximity(ops.convert_to_tensor(p)) for p in self._positions.values()]
        return sum(costs) / len(costs)

    def transport_cost(self) -> Tensor:
        """Return the cost of long connections, a scalar, without its factor."""
        costs = [
            transport(
                ops.reshape(self._kernel(connection), self._shape(connection)),
                self._placed(connection.target, connection),
                ops.convert_to_tensor(self._positions[connection.source]),
                self.power,
            )
            for connection in self._connections
        ]
        return sum(costs) / len(costs)

    def _kernel(self, connection: Connection) -> keras.Variable:
        return _kernel(self._neurons[connection.target], connection.recurrent)

    def _shape(self, connection: Connection) -> tuple[int, int, int]:
        kernel = self._kernel(connection)
        return (-1, _units(self._neurons[connection.source]), int(kernel.shape[-1]))

    def _placed(self, name: str, connection: Connection) -> Tensor:
        """Return the positions of all columns of a kernel: gates of one unit are at one place."""
        gates = int(self._kernel(connection).shape[-1]) // _units(self._neurons[name])
        return ops.tile(ops.convert_to_tensor(self._positions[name]), (gates, 1))

    @property
    def positions(self) -> dict[str, np.ndarray]:
        """The positions of the neurons, (units, dimensions) by name of the layer."""
        return {name: ops.convert_to_numpy(p) for name, p in self._positions.items()}

    @property
    def connections(self) -> list[Connection]:
        """The connections that cost transport."""
        return [*self._connections]

    def strengths(self, connection: Connection) -> np.ndarray:
        """Return the summed |w| of a connection, (source units, target units)."""
        kernel = np.abs(ops.convert_to_numpy(self._kernel(connection)))
        source = _units(self._neurons[connection.source])
        target = _units(self._neurons[connection.target])
        gates = kernel.shape[-1] // target
        return kernel.reshape(-1, source, gates, target).sum(axis=(0, 2))

    def split(self, outputs: Sequence[int]) -> dict[str, np.ndarray]:
        """Assign each neuron to a task, greedily, from the outputs back.

        A neuron joins the task with the largest sum of |w| of its connections to the next layer.

        Args:
            outputs: the task of each neuron of the last layer, integers from 0 on.

        Returns:
            Tasks by name of the layer, (units,).
        """
        names = [*self._neurons]
        last = np.asarray(outputs)
        if last.shape != (_units(self._neurons[names[-1]]),):
            raise ValueError(
                "Argument `outputs` must hold a task for each of the "
                f"{_units(self._neurons[names[-1]])} neurons of {names[-1]}. Received: shape "
                f"{last.shape}"
            )
        tasks = {names[-1]: last}
        for connection in reversed([c for c in self._connections if not c.recurrent]):
            after = tasks[connection.target]
            strengths = self.strengths(connection)
            sums = [strengths[:, after == task].sum(axis=1) for task in range(after.max() + 1)]
            tasks[connection.source] = np.argmax(sums, axis=0)
        return {name: tasks[name] for name in names}

    def part(self, tasks: Mapping[str, np.ndarray], task: int) -> keras.Model:
        """Return a copy of the network with the neurons of the other tasks silenced.

        Their connections to other layers and within their own become 0, which is the same as if
        they put out 0.

        Args:
            tasks: what `split` returned.
            task: the one to keep.
        """
        copy = keras.models.clone_model(self.network)
        copy.set_weights(self.network.get_weights())
        for connection in self._connections:
            kernel = _kernel(copy.get_layer(connection.target), connection.recurrent)
            values = ops.convert_to_numpy(kernel)
            rows = values.reshape(-1, _units(self._neurons[connection.source]), values.shape[-1])
            kept = rows * (tasks[connection.source] == task)[None, :, None]
            kernel.assign(kept.reshape(values.shape))
        return copy

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.network.compute_output_shape(input_shape)

    def get_config(self) -> Config:
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "proximity": self.proximity,
            "transport": self.transport,
            "power": self.power,
            "dimensions": self.dimensions,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: Config | None = None) -> Self:
        network = keras.saving.deserialize_keras_object(config["network"], custom_objects)
        return cls(**{**config, "network": network})


def _find_kernel(layer: keras.Layer, recurrent: bool = False) -> keras.Variable | None:
    """Return the kernel of a layer, or its recurrent one; None if it has none."""
    role = "recurrent_kernel" if recurrent else "kernel"
    return next((m.variable for m in matrices(layer) if m.role == role), None)


def _kernel(layer: keras.Layer, recurrent: bool = False) -> keras.Variable:
    """Return the kernel, or the recurrent one, of a layer that has it."""
    kernel = _find_kernel(layer, recurrent)
    assert kernel is not None
    return kernel


def _units(layer: keras.Layer) -> int:
    return layer.filters if hasattr(layer, "filters") else layer.units


def _layers_with_neurons(network: keras.Model) -> dict[str, keras.Layer]:
    """Return the layers whose neurons have positions, by name.

    Raises:
        ValueError: there are none, or one has neurons of another kind.
    """
    found = {}
    for layer in network.layers:
        kernel = _find_kernel(layer)
        if kernel is not None and (hasattr(layer, "filters") or hasattr(layer, "units")):
            plain = (
                all(
                    m.unrolling.natural(len(m.variable.shape)) and m.unrolling.groups == 1
                    for m in matrices(layer)
                )
                and getattr(layer, "data_format", "channels_last") != "channels_first"
                and kernel.shape[-1] % _units(layer) == 0
            )
            if plain:
                found[layer.name] = layer
                continue
        if matrices(layer, embeddings=True) or digital_kernels(layer):
            raise ValueError(
                "Spatial places the neurons of Dense, of convolutions (channels last, one group, "
                f"not transposed) and of recurrent layers. Received: {layer.name}, a "
                f"{type(layer).__name__}"
            )
    if not found:
        raise ValueError(
            "Argument `network` must have a layer with a kernel and units or filters. Received: "
            f"layers {[layer.name for layer in network.layers]}"
        )
    return found


def _connections(network: keras.Model, neurons: dict[str, keras.Layer]) -> list[Connection]:
    """Return the connections between the layers with neurons and within them.

    Raises:
        ValueError: the layers form no chain.
    """
    sources = _sources(network, neurons)
    connections = []
    for place, name in enumerate(neurons):
        if place:
            source = [*neurons][place - 1]
            inputs = int(np.prod(_kernel(neurons[name]).shape[:-1]))
            if sources[name] != {source} or inputs % _units(neurons[source]):
                raise ValueError(
                    f"The layers with kernels must form a chain: {name} has to take its inputs "
                    f"from {source} alone. Received: inputs from {sorted(sources[name])}, and a "
                    f"kernel of shape {tuple(_kernel(neurons[name]).shape)}"
                )
            connections.append(Connection(source, name, False))
        if _find_kernel(neurons[name], recurrent=True) is not None:
            connections.append(Connection(name, name, True))
    return connections


def _sources(network: keras.Model, neurons: dict[str, keras.Layer]) -> dict[str, set[str]]:
    """Return the layers with neurons that the inputs of each of them come from, by name."""
    if isinstance(network, keras.Sequential):
        names = [*neurons]
        return {name: set(names[place - 1 : place]) for place, name in enumerate(names)}
    parents: dict[str, set[str]] = {}
    for layer in network.get_config()["layers"]:
        parents[layer["name"]] = set(_histories(layer["inbound_nodes"]))

    def above(name: str) -> set[str]:
        found: set[str] = set()
        for parent in parents[name]:
            found |= {parent} if parent in neurons else above(parent)
        return found

    return {name: above(name) for name in neurons}


def _histories(nodes: object) -> Iterator[str]:
    """Yield the names of the layers whose outputs serialized calls take."""
    if isinstance(nodes, dict):
        if "keras_history" in nodes:
            yield nodes["keras_history"][0]
        else:
            yield from _histories([*nodes.values()])
    elif isinstance(nodes, list | tuple):
        for node in nodes:
            yield from _histories(node)
