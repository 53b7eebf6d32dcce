"""Where the backend runs a computation: on how many replicas, inside a graph or not, when done."""

import contextlib
import sys
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def replicas() -> int:
    """Count the replicas that the current distribution strategy keeps in step."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def outside_of_graphs() -> contextlib.AbstractContextManager:
    """Return a context in which variables are made at once, also while a function is traced."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()


def on_jax() -> bool:
    """Whether the backend is JAX."""
    return keras.backend.backend() == "jax"


def step_by_step() -> contextlib.AbstractContextManager:
    """Return a context in which loops over time run one step after the other, on arrays.

    JAX compiles a loop even outside of compiled functions, so that its steps have no numbers.
    """
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    loops: contextlib.AbstractContextManager = jax.disable_jit()
    return loops


def kept(states: list[Any]) -> list[Any]:
    """Return states as they are now, also after their variables have got others.

    torch changes variables in place, and the gradients of a stateful layer need what was before.
    """
    if keras.backend.backend() != "torch":
        return states
    return [keras.ops.copy(keras.ops.convert_to_tensor(state)) for state in states]


def needs_tensorflow(what: str) -> None:
    """Refuse what runs on TensorFlow alone.

    Raises:
        ValueError: the backend is another; the message says which one can.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"{what} needs the TensorFlow backend. Received: the backend {backend}; "
            "set KERAS_BACKEND=tensorflow"
        )


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager:
    """Return a context in which variables are made where those of a model are."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    scope: contextlib.AbstractContextManager = model.distribute_strategy.scope()
    return scope


def tell(function: Callable[..., None], *tensors: Any) -> None:
    """Call a function with arrays whenever a step of JAX has computed these tensors.

    A compiled step of JAX changes no variables but those that the model hands it.
    """
    import jax

    jax.debug.callback(lambda *arrays: function(*map(np.asarray, arrays)), *tensors)


def wait_for_told() -> None:
    """Wait until all that `tell` was given has been told."""
    if keras.backend.backend() == "jax":
        import jax

        jax.effects_barrier()


def tracing() -> bool:
    """Return True while TensorFlow traces a function: Python then runs once, not at every call."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def widest(dtype: str) -> str:
    """Return a dtype of 64 bits, or that of 32 bits where JAX would cut it short with a warning."""
    if keras.backend.backend() == "jax":
        import jax

        if not jax.config.jax_enable_x64:
            return dtype.replace("64", "32")
    return dtype


def known(variable: keras.Variable) -> bool:
    """Return False while a function is traced to which the values of a variable are an argument."""
    if keras.backend.backend() != "jax":
        return not tracing()
    import jax

    return not isinstance(keras.ops.convert_to_tensor(variable), jax.core.Tracer)


def torch_exports() -> bool:
    """Return whether torch.export traces, as in Keras's export for torch."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return bool(torch.compiler.is_exporting())


def torch_traces_onnx() -> bool:
    """Return whether torch traces for ONNX, as in Keras's export on torch."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return bool(torch.onnx.is_in_onnx_export())


def exporting() -> str | None:
    """Return the format for which a converter traces, or None where none does.

    Keras's `export` and the converters beside it (tf2onnx, LiteRT's own) say nowhere that they
    trace; they stand on the stack of calls, though.

    Returns:
        "onnx", "litert", "openvino", "tf_saved_model" (of `tf.saved_model.save` too) or None.
    """
    if not tracing():
        return None
    import tensorflow as tf

    doors = keras.export.ExportArchive.__module__.rpartition(".")[0]
    found = set()
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(f"{doors}."):
            found.add(module.removeprefix(f"{doors}.").partition(".")[0])
        elif module == tf.saved_model.save.__module__:
            found.add("saved_model")
        elif module.partition(".")[0] == "tf2onnx":
            found.add("onnx")
        elif module.startswith("tensorflow.lite."):
            found.add("litert")
        frame = frame.f_back
    for door in ("litert", "onnx", "openvino"):
        if door in found:
            return door
    return "tf_saved_model" if found else None


def check_states_are_kept(layer: str) -> None:
    """Refuse a stateful layer while a format is traced that cannot hold its states.

    Raises:
        ValueError: the states would be lost without a word.
    """
    target = "torch" if torch_exports() else exporting()
    if target in ("onnx", "openvino", "torch"):
        raise ValueError(
            f"Layer {layer!r} with stateful=True cannot be exported by Keras as {target}, "
            "where its states would be lost. Hand them in and out instead (initial_state, "
            "return_state=True), or use `snukeras-export --streaming`."
        )


def check_draws_are_possible(layer: str, formats: tuple[str, ...]) -> None:
    """Refuse what draws random numbers while a format is traced that has none of them.

    Args:
        layer: the name of the layer, or of the matrix on tiles, that draws.
        formats: those that have no operators for what it draws.

    Raises:
        ValueError: the converter would write a file that nothing opens.
    """
    target = exporting()
    if target in formats:
        raise ValueError(
            f"Layer {layer!r} cannot be exported by Keras as {target}, which has no operators for "
            'its random numbers. Use format="tf_saved_model".'
        )
