"""What becomes of an export on hardware: errors over time, metric, energy, risks in words."""

from typing import Any

import keras

from snukeras.export.crossbar.chip import device_of
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.report.energy import energy
from snukeras.export.report.risks import risks
from snukeras.export.report.simulation import CHIPS, MAX_WEIGHTS, TIMES, _metric, _products
from snukeras.export.samples import Samples


def forecast(
    model: keras.Model,
    crossbar: CrossbarMap,
    samples: Samples,
    verification: dict[str, Any],
    seed: int = 0,
    chips: int = CHIPS,
    progress=lambda text: None,
) -> dict[str, Any]:
    """Simulates the export on a few chips and says what to expect.

    Returns:
        {"device", "chips", "times_s", "products", "metric", "energy", "risks"}: the relative rms
        error of each matrix's product and, where the samples have targets, their metric, each by
        compensation and in the order of the times; energy
        and latency per step; risks as sentences.
    """
    progress("simulating the products of the matrices")
    device = device_of(crossbar.target)
    products = _products(crossbar, device, seed, chips)
    metric = None
    left_out: str | None = "there are no samples with a metric"
    if verification["metric"] is not None:
        left_out = f"the network has more than {MAX_WEIGHTS:,} weights on tiles"
        if crossbar.totals["weights"] <= MAX_WEIGHTS:
            progress("simulating chips over a year")
            metric = _metric(model, crossbar, device, samples, seed, chips)
            left_out = None
    found: dict[str, Any] = {
        "device": type(device).__name__,
        "chips": chips,
        "seed": seed,
        "times_s": list(TIMES),
        "products": products,
        "metric": metric,
        "metric_left_out": left_out,
        "energy": energy(crossbar),
    }
    found["risks"] = risks(crossbar, verification, found)
    return found
