"""Prove a crossbar map: the weights that it rebuilds against those of the model."""

from typing import Any

import keras
import numpy as np

from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.verify.spikes import ROUNDOFF
from snukeras.network.weights import collect


def compare_map(
    model: keras.Model, crossbar: CrossbarMap, embedding: bool = False
) -> dict[str, Any]:
    """Weights rebuilt from the map against those of the model, matrix by matrix.

    Returns:
        {"ok", "matrices": [...], "parameters_equal"}. A matrix has its largest and its rms error
        in units of weight and the bound that quantisation allows: half a level, or float rounding
        where devices are continuous. Weights on stuck devices are left out and listed in the map.
    """
    rebuilt = crossbar.weights()
    weights = collect(model, embedding)
    stuck: dict[int, set[tuple[int, int]]] = {}
    for fault in crossbar.description["faults"]:
        stuck.setdefault(fault["matrix"], set()).add((fault["row"], fault["column"]))
    matrices = []
    target = crossbar.target
    step = 0.0 if target.levels is None else (target.g_max - target.g_min) / (target.levels - 1)
    by_name = {weight.name: weight for weight in weights}
    for index, entry in enumerate(crossbar.description["matrices"]):
        name, own = entry["name"], by_name.get(entry["name"])
        if own is None or list(own.values.shape) != entry["shape"]:
            matrices.append({"name": name, "ok": False, "problem": "not in the model"})
            continue
        wanted = own.values.reshape(entry["rows"], entry["columns"])
        error = rebuilt[name].reshape(wanted.shape).astype("float64") - wanted
        # Rounding: of the two conductances (up to g_max), of the product, of the quotient.
        scales = crossbar.scales(name)
        bound = (step / 2 + 8 * ROUNDOFF * target.g_max) / scales
        for row, column in stuck.get(index, ()):
            error[row, column] = 0.0
        matrices.append(
            {
                "name": name,
                "layer": entry["layer"],
                "shape": entry["shape"],
                "weights": int(wanted.size),
                "devices": 2 * target.devices_per_polarity * int(wanted.size),
                "tiles": len(
                    {
                        block["tile"]
                        for block in crossbar.description["blocks"]
                        if block["matrix"] == index
                    }
                ),
                "max_weight": float(np.abs(wanted).max()),
                "rms_weight": float(np.sqrt(np.mean(wanted.astype("float64") ** 2))),
                "max_error": float(np.abs(error).max()),
                "rms_error": float(np.sqrt(np.mean(error**2))),
                "half_level": float(step / 2 / scales.min()),
                "stuck": len(stuck.get(index, ())),
                "ok": bool(np.all(np.abs(error) <= bound)),
            }
        )
    names = {weight.name for weight in weights}
    parameters = crossbar.parameters()
    equal = all(
        name in by_name and np.array_equal(values, by_name[name].values)
        for name, values in parameters.items()
    )
    complete = names == set(parameters) | set(crossbar.matrices)
    return {
        "ok": equal and complete and all(matrix["ok"] for matrix in matrices),
        "matrices": matrices,
        "parameters_equal": equal,
        "complete": complete,
    }
