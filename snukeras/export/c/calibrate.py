"""What samples say of the numbers of a network, for its integers."""

import numpy as np

from snukeras.export.c.plan import Dense, Neurons, Plan
from snukeras.export.c.quantise import Range
from snukeras.export.network import Network
from snukeras.export.samples import Samples
from snukeras.export.verify.running import runner
from snukeras.network.topology import Key


def ranges(plan: Plan, network: Network, samples: Samples) -> dict[str, Range]:
    """Return the ranges of inputs, of outputs of Dense layers, and of potentials put out, by label.

    Args:
        plan: The plan of the network.
        network: The network.
        samples: Its input.
    """
    tensors = [*plan.inputs]
    tensors += [
        each.target
        for each in plan.operations
        if isinstance(each, Dense) or (isinstance(each, Neurons) and each.threshold is None)
    ]
    keys: list[Key] = sorted({tensor.key for tensor in tensors})
    run = runner(network.topology, network.model, keys)
    found: dict[str, Range] = {}
    for feeds in samples.batches:
        values = run(feeds)
        for tensor in tensors:
            seen = Range.of(np.asarray(values[tensor.key]))
            known = found.get(tensor.label, seen)
            peak = max(seen.peak, known.peak)
            # As many bits as a batch asks for, if the largest number leaves room for them.
            most = Range(peak, 0).room
            found[tensor.label] = Range(peak, min(max(seen.whole, known.whole), most))
    return found
