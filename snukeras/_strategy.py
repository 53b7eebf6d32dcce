"""Where TensorFlow runs a computation: on how many replicas, and inside a graph or not."""

import contextlib
import sys
import types

import keras


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


def tracing() -> bool:
    """Return True while TensorFlow traces a function: Python then runs once, not at every call."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


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
