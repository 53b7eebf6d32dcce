"""Which GPU a framework sees, asked in the process that runs its contestants."""


def found(framework: str) -> str | None:
    """Return the name of the GPU that a framework runs on, or None where it sees none.

    Args:
        framework: As that of a contestant.
    """
    backend = framework.removeprefix("keras-")
    if backend == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        if not devices:
            return None
        details = tf.config.experimental.get_device_details(devices[0])
        return str(details.get("device_name", devices[0].name))
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    import jax

    device = jax.devices()[0]
    return None if device.platform == "cpu" else str(device.device_kind)
