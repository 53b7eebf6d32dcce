"""The ONNX forms of layers: importing this package registers a handler for each of them."""

from snukeras.export.onnx.layers import (
    conv_snu_scan,
    keras_recurrent,
    plain,
    rate_coding,
    snu,
    snu_scan,
    sound,
    tied_embedding,
)

__all__ = [
    "conv_snu_scan",
    "keras_recurrent",
    "plain",
    "rate_coding",
    "snu",
    "snu_scan",
    "sound",
    "tied_embedding",
]
