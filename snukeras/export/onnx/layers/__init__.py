"""How each layer is lowered to ONNX; importing a module registers its handlers."""

from snukeras.export.onnx.layers import (
    keras_recurrent,
    plain,
    rate_coding,
    snu,
    sound,
    tied_embedding,
)

__all__ = ["keras_recurrent", "plain", "rate_coding", "snu", "sound", "tied_embedding"]
