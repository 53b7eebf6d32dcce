"""The ONNX forms of layers: importing this package registers a handler for each of them."""

from snukeras.export.onnx.layers import (
    attention,
    conv_snu_scan,
    convolution,
    elementwise,
    keras_loop,
    keras_recurrent,
    merging,
    normalization,
    plain,
    pooling,
    rate_coding,
    reshaping,
    snu,
    snu_scan,
    sound,
    tied_embedding,
)

__all__ = [
    "attention",
    "conv_snu_scan",
    "convolution",
    "elementwise",
    "keras_loop",
    "keras_recurrent",
    "merging",
    "normalization",
    "plain",
    "pooling",
    "rate_coding",
    "reshaping",
    "snu",
    "snu_scan",
    "sound",
    "tied_embedding",
]
