"""An embedding whose table is also the output projection of a language model."""

from typing import Unpack

import keras
from keras import ops

from snukeras import _arguments
from snukeras._arguments import LayerArguments
from snukeras._types import Config, Constraint, Initializer, Regularizer, Shape, Tensor


@keras.saving.register_keras_serializable(package="snukeras")
class TiedEmbedding(keras.layers.Layer):
    """Embedding of words and, called with `reverse=True`, projection of vectors onto words.

    Both share one table E of shape (input_dim, output_dim) (Press and Wolf, EACL 2017; Inan et
    al., ICLR 2017). A model calls the layer twice, so that the tie survives saving, loading and
    cloning, which a functional Keras model does for shared layers:

        vector = E[word]                     shape (..., output_dim)
        logits = vector E^T + bias           shape (..., input_dim), with reverse=True

    Args:
        input_dim: Size of the vocabulary.
        output_dim: Width of the vectors.
        use_bias: Whether the projection adds a bias for each word.
        embeddings_initializer: For E.
        embeddings_regularizer: For E.
        embeddings_constraint: For E.
        bias_initializer: For the bias.

    Call arguments:
        inputs: Numbers of words, an integer tensor of any shape; with `reverse=True` vectors
            (..., output_dim).
        reverse: Project instead of looking up.

    Raises:
        ValueError: A size below 1, or vectors of another width than `output_dim`.

    Example:

        words = keras.Input((None,), dtype="int32")
        embedding = snukeras.layers.TiedEmbedding(10_000, 200)
        x = snukeras.layers.SSNU(200, recurrent=True, return_sequences=True)(embedding(words))
        model = keras.Model(words, embedding(x, reverse=True))
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    """

    tile_matrices = ("embeddings",)

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        use_bias: bool = True,
        embeddings_initializer: Initializer = "uniform",
        embeddings_regularizer: Regularizer = None,
        embeddings_constraint: Constraint = None,
        bias_initializer: Initializer = "zeros",
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(**_arguments.of_keras(type(self), kwargs))
        self.input_dim = _arguments.whole("input_dim", input_dim)
        self.output_dim = _arguments.whole("output_dim", output_dim)
        self.use_bias = bool(use_bias)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.embeddings_regularizer = keras.regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = keras.constraints.get(embeddings_constraint)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.supports_masking = True
        # Numbers of words have to stay integers; half precision cannot hold them.
        self.autocast = False
        self.bias = None

    def build(self, input_shape: Shape | None = None) -> None:
        self.embeddings = self.add_weight(
            shape=(self.input_dim, self.output_dim),
            name="embeddings",
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.input_dim,), name="bias", initializer=self.bias_initializer
            )
        self.built = True

    def call(self, inputs: Tensor, reverse: bool = False) -> Tensor:
        table = ops.cast(self.embeddings, self.compute_dtype)
        if not reverse:
            return ops.take(table, ops.cast(inputs, "int32"), axis=0)
        width = inputs.shape[-1]
        if width != self.output_dim:
            raise ValueError(
                f"The layer {self.name} projects vectors of its own width, {self.output_dim}. "
                f"Received: width {width}. Set units or `output_dim` so that they agree, or put "
                "a Dense layer between."
            )
        logits = ops.matmul(ops.cast(inputs, self.compute_dtype), ops.transpose(table))
        return logits if self.bias is None else logits + ops.cast(self.bias, self.compute_dtype)

    def compute_output_spec(self, inputs: Tensor, reverse: bool = False) -> keras.KerasTensor:
        lead = inputs.shape[:-1] if reverse else inputs.shape
        width = self.input_dim if reverse else self.output_dim
        return keras.KerasTensor((*lead, width), dtype=self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "use_bias": self.use_bias,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "embeddings_regularizer": keras.regularizers.serialize(self.embeddings_regularizer),
            "embeddings_constraint": keras.constraints.serialize(self.embeddings_constraint),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
