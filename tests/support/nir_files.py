"""Write NIR files without the library nir, well formed or not."""

import itertools

import h5py
import numpy as np


def write(path, nodes, edges, version="1.0.4"):
    """Write a file without the library: nodes are dicts of their fields."""

    def put(group, fields):
        for name, value in fields.items():
            if name == "nodes":
                inner = group.create_group("nodes")
                for key, node in value.items():
                    put(inner.create_group(key), node)
            else:
                group[name] = value

    pairs = [[a.encode(), b.encode()] for a, b in edges]
    with h5py.File(path, "w") as file:
        file["version"] = version
        put(file.create_group("node"), {"type": "NIRGraph", "nodes": nodes, "edges": pairs})
    return path


def chain(*names):
    return list(itertools.pairwise(names))


def lif(units=3, **fields):
    ones = np.ones(units)
    given = {"tau": ones * 1e-2, "r": ones, "v_leak": 0 * ones, "v_threshold": ones * 0.1}
    return {"type": "LIF", **given, **fields}


def linear(outputs=3, inputs=4, **fields):
    return {"type": "Linear", "weight": np.ones((outputs, inputs)), **fields}
