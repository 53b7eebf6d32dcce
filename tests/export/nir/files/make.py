"""Write the NIR files of this folder by other libraries, each with the spikes of its own run.

The tests read the files and need none of these libraries. Each library has its own environment:

    python -m venv peers && peers/bin/pip install snntorch norse sinabs nirtorch
    peers/bin/python make.py norse            (nir 1.0.4, which sinabs wants, nirtorch 2.0)
    peers/bin/python make.py sinabs
    peers/bin/pip install nir==1.0.8 && peers/bin/python make.py snntorch
    peers/bin/pip install spikingjelly nirtorch==2.6 && peers/bin/python make.py spikingjelly
    python -m venv other && other/bin/pip install spyx nir==1.0.8
    other/bin/python make.py spyx

NAME.npz has the bytes of the NIR file, x (batch, time, features), and y, what the library put out,
in the order of axes that Keras has: maps are (height, width, channels).
"""

import io
import sys
from pathlib import Path

import nir
import numpy as np

HERE = Path(__file__).resolve().parent
BATCH, STEPS = 2, 30


def save(name: str, graph, x, y) -> None:
    """Write a network and its run; x and y as the library has them, time first."""

    def turned(values) -> np.ndarray:
        values = np.asarray(values)
        return np.moveaxis(values, 2, -1) if values.ndim == 5 else values

    with io.BytesIO() as memory:
        nir.write(memory, graph)
        file = np.frombuffer(memory.getvalue(), "uint8")
    x, y = (turned(v).swapaxes(0, 1).astype("float32") for v in (x, y))
    np.savez_compressed(HERE / f"{name}.npz", nir=file, x=x, y=y)
    spikes = set(np.unique(y)) <= {0.0, 1.0}
    print(name, x.shape, y.shape, "mean", y.mean(), "" if spikes else f"largest {y.max()}")


def known(graph, shapes: dict[str, tuple[int, ...]]):
    """Fill in the shapes, by node, that norse and sinabs leave open and nir cannot write."""
    for name, shape in shapes.items():
        node = graph.nodes[name]
        if isinstance(node, nir.Flatten):
            node.input_type = {"input": np.array(shape)}
        else:
            node.input_shape = shape
    return graph


def drawn(*shape: int, scale: float = 1.0) -> np.ndarray:
    generator = np.random.default_rng(sum(shape))
    return (scale * generator.normal(size=(STEPS, BATCH, *shape))).astype("float32")


def snntorch() -> None:
    import snntorch as snn
    import torch
    from snntorch import utils
    from snntorch.export_nir import export_to_nir

    nn, tensor = torch.nn, torch.tensor

    # nir 1.0.8 wants a number for each neuron.
    def neurons(*shape: int, beta: float = 0.9, threshold: float = 1.0, **options):
        given = {"beta": torch.full(shape, beta), "threshold": torch.full(shape, threshold)}
        return {**given, "init_hidden": True, **options}

    def run(name: str, net, x: np.ndarray) -> None:
        sample = torch.from_numpy(x[0])
        utils.reset(net)
        with torch.no_grad():
            y = [net(torch.from_numpy(step)) for step in x]
        y = [out[0] if isinstance(out, tuple) else out for out in y]
        utils.reset(net)
        save(name, export_to_nir(net, sample[:1], ignore_dims=[0]), x, torch.stack(y))

    beta, threshold = tensor([0.5, 0.6, 0.7]), tensor([0.5, 0.4, 0.3])
    for reset in ("subtract", "zero"):
        torch.manual_seed(1)
        first = snn.Leaky(**neurons(6), reset_mechanism=reset)
        last = snn.Leaky(beta=beta, threshold=threshold, reset_mechanism=reset, init_hidden=True)
        layers = (nn.Linear(4, 6), first, nn.Linear(6, 3, bias=False), last)
        run(f"snntorch_leaky_{reset}", nn.Sequential(*layers), drawn(4, scale=2.0))
        torch.manual_seed(2)
        first = snn.Synaptic(**neurons(6), alpha=torch.full((6,), 0.8), reset_mechanism=reset)
        given = neurons(3, beta=0.8, threshold=0.4)
        last = snn.RLeaky(**given, linear_features=3, reset_mechanism=reset)
        layers = (nn.Linear(4, 6), first, nn.Linear(6, 3), last)
        run(f"snntorch_recurrent_{reset}", nn.Sequential(*layers), drawn(4, scale=4.0))
    torch.manual_seed(3)
    given = neurons(3, beta=0.8, alpha=torch.full((3,), 0.5))
    last = snn.RSynaptic(**given, all_to_all=False, V=tensor([0.3, -0.2, 0.1]))
    run("snntorch_rsynaptic", nn.Sequential(nn.Linear(4, 3), last), drawn(4, scale=4.0))
    torch.manual_seed(5)
    layers = (
        nn.Conv2d(1, 2, 3, padding=1, stride=(1, 2)), snn.Leaky(**neurons(2, 6, 4)),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3),
        snn.Leaky(**neurons(3, beta=0.8, threshold=0.2)),
    )  # fmt: skip
    run("snntorch_conv", nn.Sequential(*layers), drawn(1, 6, 8, scale=2.0))


def norse() -> None:
    import norse.torch as nt
    import torch
    from norse.torch.utils.export_nir import to_nir

    def run(name: str, *layers, shapes=(), x: np.ndarray | None = None) -> None:
        net, x = nt.SequentialState(*layers), drawn(4, scale=6.0) if x is None else x
        state, y = None, []
        with torch.no_grad():
            for step in x:
                out, state = net(torch.from_numpy(step), state)
                y.append(out)
        graph = known(to_nir(net, torch.from_numpy(x[0])), dict(shapes))
        save(name, graph, x, torch.stack(y))

    linear = torch.nn.Linear
    torch.manual_seed(1)
    box = nt.LIFBoxParameters(tau_mem_inv=torch.tensor(400.0), v_th=torch.tensor(0.1))
    leaky = nt.LIFBoxParameters(v_leak=torch.tensor(0.2), v_th=torch.tensor(0.21))
    run("norse_box", linear(4, 6), nt.LIFBoxCell(box), linear(6, 3), nt.LIFBoxCell(leaky))
    torch.manual_seed(2)
    fast = nt.LIFParameters(tau_syn_inv=torch.tensor(300.0), v_th=torch.tensor(0.5))
    run("norse_cuba", linear(4, 6), nt.LIFCell(fast), linear(6, 3), nt.LIBoxCell())
    torch.manual_seed(4)
    low = nt.IAFParameters(v_th=torch.tensor(0.4))
    run("norse_iaf", linear(4, 6), nt.IAFCell(), linear(6, 3), nt.IAFCell(low))
    # norse writes convolutions, and neither Flatten nor pooling.
    torch.manual_seed(6)
    conv = torch.nn.Conv2d
    first = nt.LIFBoxParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.15))
    second = nt.LIFParameters(v_th=torch.tensor(0.1))
    layers = (conv(1, 2, 3, padding=1, stride=2), nt.LIFBoxCell(first), conv(2, 3, (2, 3)))
    shapes = {"0": (6, 8), "2": (3, 4)}
    run("norse_conv", *layers, nt.LIFCell(second), shapes=shapes, x=drawn(1, 6, 8, scale=6.0))


def sinabs() -> None:
    import sinabs.layers as sl
    import torch
    from sinabs.nir import to_nir

    def run(name: str, x: np.ndarray, *layers) -> None:
        net, given = torch.nn.Sequential(*layers), torch.from_numpy(x).transpose(0, 1)
        with torch.no_grad():
            y = net(given)
        save(name, to_nir(net, given), x, y.transpose(0, 1))

    nn, full = torch.nn, torch.full
    torch.manual_seed(1)
    lif = sl.LIF(tau_mem=full((6,), 4.0), spike_threshold=full((6,), 0.1))
    leak = sl.ExpLeak(tau_mem=full((3,), 20.0))
    run("sinabs_lif", drawn(4), nn.Linear(4, 6), lif, nn.Linear(6, 3, bias=False), leak)
    torch.manual_seed(2)
    run("sinabs_iaf", drawn(4, scale=5.0), nn.Linear(4, 6), sl.IAF(), nn.Linear(6, 3), sl.IAF())
    # Its convolutions take no time: a Squeeze layer joins it with the batch, which to_nir counts.
    torch.manual_seed(6)
    conv = nn.Conv2d(1, 2, 3, padding=1, stride=(1, 2))
    leaky = {"tau_mem": full((1,), 5.0), "spike_threshold": full((1,), 0.1), "batch_size": BATCH}
    layers = (conv, sl.LIFSqueeze(**leaky), sl.SumPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    net = nn.Sequential(*layers, sl.IAFSqueeze(batch_size=BATCH))
    x = drawn(1, 6, 8, scale=2.0)
    joined = torch.from_numpy(x).transpose(0, 1).flatten(0, 1)
    with torch.no_grad():
        y = net(joined).unflatten(0, (BATCH, STEPS)).transpose(0, 1)
    save("sinabs_conv", known(to_nir(net, joined), {"0": (6, 8), "3": (2, 3, 2)}), x, y)


def spikingjelly() -> None:
    import torch
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    def run(name: str, x: np.ndarray, *layers) -> None:
        net = torch.nn.Sequential(*layers)
        with torch.no_grad():
            y = torch.stack([net(torch.from_numpy(step)) for step in x])
        functional.reset_net(net)
        save(name, export_to_nir(net, torch.from_numpy(x[0])), x, y)

    torch.manual_seed(1)
    first, last = neuron.LIFNode(tau=3.0, v_threshold=0.5), neuron.IFNode(v_threshold=0.25)
    leaky = neuron.LIFNode(tau=2.0, decay_input=False, v_reset=0.1)
    linear = layer.Linear
    run("spikingjelly_hard", drawn(4, scale=3.0), linear(4, 6), first, linear(6, 5), leaky,
        linear(5, 3), last)  # fmt: skip


def spyx() -> None:
    import jax.numpy as jnp
    import spyx.nn as sn
    from flax import nnx
    from spyx.nir import to_nir

    def run(name: str, x: np.ndarray, outputs: int, *layers) -> None:
        net = sn.Sequential(*layers)
        turned = np.moveaxis(x, 2, -1) if x.ndim == 5 else x
        y, _ = sn.run(net, jnp.asarray(turned))
        shapes = ({"input": np.array(x.shape[2:])}, {"output": np.array([outputs])})
        save(name, to_nir(net, *shapes), x, y)

    r = nnx.Rngs(1)

    def linear(*sizes: int, **options):
        return nnx.Linear(*sizes, rngs=r, **options)

    x = drawn(4, scale=4.0)
    lif, out = sn.LIF((6,), threshold=0.2, rngs=r), nnx.Linear(6, 3, rngs=nnx.Rngs(7))
    layers = (linear(4, 6), lif, out, sn.IF((3,), 0.1))
    run("spyx_lif", x, 3, *layers)
    first = (linear(4, 6, use_bias=False), sn.RCuBaLIF((6,), threshold=0.4, rngs=r))
    second = (linear(6, 5), sn.RLIF((5,), threshold=0.3, rngs=r))
    last = (linear(5, 3), sn.PSU_LIF((3,), threshold=0.2, rngs=r))
    run("spyx_recurrent", x, 3, *first, *second, *last)
    conv = nnx.Conv(1, 2, (3, 3), padding="VALID", rngs=r)
    run("spyx_conv", drawn(1, 6, 8, scale=2.0), 3, conv, sn.LIF((4, 6, 2), rngs=r),
        sn.SumPool(2, 2, "VALID", channel_axis=-1), sn.Flatten(), linear(12, 3),
        sn.CuBaLIF((3,), rngs=r))  # fmt: skip


if __name__ == "__main__":
    globals()[sys.argv[1]]()
