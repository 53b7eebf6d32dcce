"""Read a Keras model's topology through its public config: an ordered list of calls."""

import dataclasses

import keras

from snukeras._types import Config, Dtype, Nested, Shape, Tensor
from snukeras.network.errors import BadInputError

Key = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Ref:
    """A tensor between layers: which call made it, with its shape (None is dynamic) and dtype."""

    key: Key
    shape: tuple[int | None, ...]
    dtype: str


Origin = str | list[Ref]
"""Where tensors come from: the name of a call, or the tensors that a nested model puts out."""

End = tuple[str, int, int]
"""An input or output in a model's config: layer, number of its call, number of the tensor."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or Keras operation; `args` and `kwargs` hold `Ref`s where tensors are.

    Attributes:
        name: name of the layer, unique also where a layer is called several times; output i of the
            call is the tensor (name, i).
        nested: whether it belongs to a model inside the model. A model's own config says which
            mask each of its layers gets; inside a nested model masks come along with tensors.
        op: the layer or operation.
    """

    name: str
    op: keras.Operation
    args: tuple[Nested, ...]
    kwargs: dict[str, Nested]
    nested: bool = False

    @property
    def inputs(self) -> list[Ref]:
        """The tensors the call takes, flattened, a mask among them."""
        return [x for x in keras.tree.flatten((self.args, self.kwargs)) if isinstance(x, Ref)]


@dataclasses.dataclass(frozen=True)
class Topology:
    """Inputs and outputs by name, and the calls between them in an order that can be run."""

    inputs: list[tuple[str, Ref]]
    outputs: list[tuple[str, Ref]]
    calls: list[Call]


def read(model: keras.Model) -> Topology:
    """Read the topology of a Sequential or functional model; models inside it are unfolded.

    Raises:
        BadInputError: the model was never built, or is a subclass with a `call` of its own.
    """
    reader = _Reader()
    results = reader.unfold(model, "")
    taken = {name for name, _ in reader.inputs}
    outputs = []
    for layer, ref in results:
        name, count = layer, 0
        while name in taken:
            count += 1
            name = f"{layer}_{count}"
        taken.add(name)
        outputs.append((name, ref))
    return Topology(reader.inputs, outputs, reader.calls)


def run(topology: Topology, feeds: list[Tensor]) -> dict[Key, Tensor]:
    """Run a topology eagerly in Keras; return every tensor between the layers by its key."""
    values: dict[Key, Tensor] = {
        ref.key: keras.ops.convert_to_tensor(feed, dtype=ref.dtype)
        for (_, ref), feed in zip(topology.inputs, feeds, strict=True)
    }
    for call in topology.calls:
        args, kwargs = bind(call, values)
        for index, output in enumerate(keras.tree.flatten(call.op(*args, **kwargs))):
            values[(call.name, index)] = output
    return values


def bind(call: Call, values: dict[Key, Tensor]) -> tuple[Nested, Nested]:
    """Return the call's args and kwargs with values in place of `Ref`s."""
    return keras.tree.map_structure(
        lambda x: values[x.key] if isinstance(x, Ref) else x, (call.args, call.kwargs)
    )


def _ends(model: keras.Model) -> tuple[list[Tensor], list[Tensor]] | None:
    """Return input and output tensors of a model, or None if it has no topology."""
    try:
        inputs, outputs = model.inputs, model.outputs
    except (AttributeError, ValueError):
        return None
    return (list(inputs), list(outputs)) if inputs and outputs else None


class _Reader:
    """Unfold a model, and the models inside it, into calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.inputs: list[tuple[str, Ref]] = []

    def unfold(
        self, model: keras.Model, prefix: str, given: list[Ref] | None = None
    ) -> list[tuple[str, Ref]]:
        """Add the calls of a model; return the layer name and tensor of each output.

        Args:
            model: the model.
            prefix: put before the names of its layers.
            given: tensors that a model inside another is called on.
        """
        ends = _ends(model)
        if ends is None:
            raise BadInputError(
                f"The model {model.name!r} ({type(model).__name__}) has no topology to read.",
                "Build it with keras.Sequential (start it with keras.Input, or call it once) or "
                "with keras.Model(inputs, outputs).",
            )
        # Rebuilt as a plain functional model, so that every config has the same form.
        plain = keras.Model(*ends)
        config = plain.get_config()
        operations = {operation.name: operation for operation in plain.operations}
        known: dict[Key, Origin] = {}
        for index, (name, node, _) in enumerate(_triples(config["input_layers"])):
            if given is None:
                tensor = plain.inputs[index]
                dtype = keras.backend.standardize_dtype(tensor.dtype)
                ref = Ref((name, 0), tuple(tensor.shape), dtype)
                self.inputs.append((name, ref))
            else:
                ref = given[index]
            known[(name, node)] = [ref]

        waiting = [
            (layer["name"], number, node)
            for layer in config["layers"]
            if layer["class_name"] != "InputLayer"
            for number, node in enumerate(layer["inbound_nodes"])
        ]
        while waiting:
            ready = [item for item in waiting if self._visit(*item, operations, known, prefix)]
            if not ready:
                raise BadInputError(f"The topology of {model.name!r} cannot be put in order.")
            waiting = [item for item in waiting if item not in ready]
        results = []
        for (name, node, index), tensor in zip(
            _triples(config["output_layers"]), plain.outputs, strict=True
        ):
            # Here, but not in the calls, Keras counts a functional model's own node as well.
            if isinstance(operations[name], type(plain)) and (name, node - 1) in known:
                node -= 1
            results.append((name, _tensor(known[(name, node)], index, tensor.shape, tensor.dtype)))
        return results

    def _visit(
        self,
        name: str,
        number: int,
        node: Config,
        operations: dict[str, keras.Operation],
        known: dict[Key, Origin],
        prefix: str,
    ) -> bool:
        """Add one call if all that it takes is known already."""
        missing = False

        def decode(x: Nested) -> Nested:
            nonlocal missing
            if isinstance(x, dict) and x.get("class_name") == "__keras_tensor__":
                source, index, output = x["config"]["keras_history"]
                if (source, index) not in known:
                    missing = True
                    return None
                spec = x["config"]
                return _tensor(known[(source, index)], output, spec["shape"], spec["dtype"])
            if isinstance(x, dict) and {"class_name", "config"} <= set(x):
                return keras.saving.deserialize_keras_object(x)
            if isinstance(x, dict):
                return {key: decode(value) for key, value in x.items()}
            if isinstance(x, list | tuple):
                return type(x)(decode(value) for value in x)
            return x

        args, kwargs = decode(node["args"]), decode(node["kwargs"])
        if missing:
            return False
        label = f"{prefix}{name}" + (f"@{number + 1}" if number else "")
        call = Call(label, operations[name], args, kwargs, bool(prefix))
        if isinstance(call.op, keras.Model) and _ends(call.op):
            results = self.unfold(call.op, f"{label}/", self._given(call))
            known[(name, number)] = [ref for _, ref in results]
        else:
            self.calls.append(call)
            known[(name, number)] = label
        return True

    def _given(self, call: Call) -> list[Ref]:
        """Return the tensors a nested model is called on, each tied to the mask given with it."""
        masks = keras.tree.flatten(call.kwargs.get("mask"))
        kwargs = {key: value for key, value in call.kwargs.items() if key != "mask"}
        given = dataclasses.replace(call, kwargs=kwargs).inputs
        for index, mask in enumerate(masks):
            if isinstance(mask, Ref):
                name = f"{call.name}/masked_{index}"
                self.calls.append(Call(name, attach_mask, (given[index], mask), {}))
                given[index] = dataclasses.replace(given[index], key=(name, 0))
        return given


def _triples(layers: Nested) -> list[End]:
    """Return [layer, node, tensor] of each end of a model; some Keras unwraps a single one."""
    return [layers] if layers and isinstance(layers[0], str) else layers


def attach_mask(tensor: Tensor, mask: Tensor) -> Tensor:
    """Mark where a mask joins its tensor. In Keras the tensor carries its mask already."""
    return tensor


def _tensor(source: Origin, index: int, shape: Shape, dtype: Dtype) -> Ref:
    """Refer to output `index` of a call (its name) or of a nested model (its tensors)."""
    key = (source, index) if isinstance(source, str) else source[index].key
    return Ref(key, tuple(shape), keras.backend.standardize_dtype(dtype))
