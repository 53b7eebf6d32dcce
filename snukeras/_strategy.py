"""Where TensorFlow runs a computation: on how many replicas, and inside a graph or not."""

import contextlib

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
