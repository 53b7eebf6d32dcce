"""The devices of memristive layers: which are allowed, and how a config holds them."""

import keras

from snukeras._types import Config
from snukeras.pcm import NandakumarPCM, PulsedPCM


def checked_device(device: PulsedPCM | None) -> PulsedPCM:
    """Return the device of a layer, by default a NandakumarPCM.

    Raises:
        TypeError: it is no PulsedPCM.
    """
    device = NandakumarPCM() if device is None else device
    if not isinstance(device, PulsedPCM):
        raise TypeError(
            "Argument `device` must be a PulsedPCM, such as snukeras.pcm.NandakumarPCM(). "
            f"Received: device={device!r}"
        )
    return device


def with_device(config: Config) -> Config:
    """Return the config of a layer with its device as an object."""
    return {**config, "device": keras.saving.deserialize_keras_object(config["device"])}
