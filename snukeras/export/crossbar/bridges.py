"""Load the conductances of a crossbar map into the simulators aihwkit and CrossSim.

Both take matrices and make conductances of them. They are given (G+ - G-) / (g_max - g_min), whose
conductances are those of the map, where one device of each pair rests at g_min as the mapper leaves
it; the scale of a column stays digital.
"""

import copy
import dataclasses
import importlib
from typing import Any

import numpy as np

from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.crossbar.targets import Target
from snukeras.export.errors import BadInputError


@dataclasses.dataclass(frozen=True)
class AnalogMatrix:
    """A matrix of a map in another simulator.

    Attributes:
        analog: The simulator's own object, which computes products of devices.
        scale: What its outputs are multiplied by, float32 (columns,), to be those of the weights.
    """

    analog: Any
    scale: np.ndarray


def to_aihwkit(crossbar: CrossbarMap, rpu_config: Any = None) -> dict[str, AnalogMatrix]:
    """Return an aihwkit `AnalogLinear` without bias for each matrix of a map.

    `matrix.analog(x) * torch.from_numpy(matrix.scale)` is the product with the weights. By default
    devices are aihwkit's PCM with the conductance range of the map's target, on tiles of its size,
    computed in torch; `program_analog_weights` and `drift_analog_weights` of aihwkit work on the
    layers.

    Args:
        crossbar: The map.
        rpu_config: A `TorchInferenceRPUConfig` or `InferenceRPUConfig` to use instead; a copy is
            used that scales no weights.

    Raises:
        BadInputError: aihwkit is not installed.
    """
    torch = _installed("torch", "to_aihwkit", "aihwkit")
    nn = _installed("aihwkit.nn", "to_aihwkit", "aihwkit")
    config = copy.deepcopy(rpu_config) if rpu_config is not None else _pcm(crossbar.target)
    config.mapping.weight_scaling_omega = 0.0
    found = {}
    for name in crossbar.matrices:
        values, scale = _normalised(crossbar, name)
        layer = nn.AnalogLinear(*values.shape, bias=False, rpu_config=copy.deepcopy(config))
        layer.set_weights(torch.from_numpy(np.ascontiguousarray(values.T)))
        found[name] = AnalogMatrix(layer, scale)
    return found


def to_crosssim(crossbar: CrossbarMap, params: Any = None) -> dict[str, AnalogMatrix]:
    """Return a CrossSim `AnalogCore`, outputs by inputs, for each matrix of a map.

    `matrix.scale * (matrix.analog @ x)` is the product with the weights.

    Args:
        crossbar: The map.
        params: `CrossSimParameters` with errors, converters and the like; in a copy the cores are
            made balanced, one-sided, with the conductance range and the tiles of the map.

    Raises:
        BadInputError: CrossSim is not installed.
    """
    simulator = _installed("simulator", "to_crosssim", "CrossSim")
    kinds = _installed("simulator.parameters.core_parameters", "to_crosssim", "CrossSim")
    config = simulator.CrossSimParameters() if params is None else params.copy()
    target = crossbar.target
    core, device = config.core, config.xbar.device
    core.style, core.balanced.style = kinds.CoreStyle.BALANCED, kinds.BalancedCoreStyle.ONE_SIDED
    core.rows_max, core.cols_max = target.bit_lines // 2, target.rows
    core.mapping.weights.percentile = None
    core.mapping.weights.min, core.mapping.weights.max = -1.0, 1.0
    # The levels are in the map already; ohms of microsiemens.
    device.cell_bits, device.Rmin = 0, 1e6 / target.g_max
    device.infinite_on_off_ratio = target.g_min == 0
    if target.g_min > 0:
        device.Rmax = 1e6 / target.g_min
    found = {}
    for name in crossbar.matrices:
        values, scale = _normalised(crossbar, name)
        found[name] = AnalogMatrix(simulator.AnalogCore(values.T.copy(), config), scale)
    return found


def _normalised(crossbar: CrossbarMap, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences of a matrix as shares of the range, and the scales of its outputs."""
    span = crossbar.target.g_max - crossbar.target.g_min
    plus, minus = crossbar.conductances(name)
    values = (plus.astype("float64") - minus) / span
    return values.astype("float32"), (span / crossbar.scales(name)).astype("float32")


def _pcm(target: Target) -> Any:
    """Return aihwkit's configuration of PCM with the range and the tile of a target."""
    inference = _installed("aihwkit.inference", "to_aihwkit", "aihwkit")
    configs = _installed("aihwkit.simulator.configs", "to_aihwkit", "aihwkit")
    converter = inference.SinglePairConductanceConverter(g_max=target.g_max, g_min=target.g_min)
    config = configs.TorchInferenceRPUConfig(
        noise_model=inference.PCMLikeNoiseModel(g_converter=converter)
    )
    config.mapping.max_input_size = target.rows
    config.mapping.max_output_size = target.bit_lines // 2
    return config


def _installed(module: str, function: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadInputError(
            f"{function} needs {package}, and {module} cannot be imported: {error}.",
            "pip install aihwkit."
            if package == "aihwkit"
            else "Install CrossSim from its repository; it is on no package index.",
        ) from error
