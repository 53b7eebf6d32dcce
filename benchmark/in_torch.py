"""Contestants on torch, each as its library would have it and at its fastest reasonable setting.

All get time-first data. What reaches a spiking layer goes through its linear layer for all steps
at once, which feed-forward networks permit and which is faster than step by step. The optimizers
are the fused ones. Inference runs under torch.inference_mode. torch.compile is not used: it would
unroll the loops over time, at minutes of compilation for each network.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch

from benchmark.contestants import Contestant
from benchmark.networks import Network


def build(
    contestant: Contestant, network: Network, work: str, optimizer: str, rate: float
) -> Callable[[], Any]:
    """Return a function that does one step; the counterpart of `in_keras.build`."""
    torch.manual_seed(0)
    if contestant.is_floor:
        return _products(contestant, network, work)
    arrays = network.data()
    x = torch.from_numpy(arrays[0]).to(_device()).transpose(0, 1).contiguous()
    y = torch.from_numpy(arrays[1]).to(_device())
    y = y.long() if network.labels else y.transpose(0, 1).contiguous()
    model = _Stack(_LAYERS[contestant.library], network).to(_device())

    if work == "inference":
        model.eval()

        def infer() -> torch.Tensor:
            with torch.inference_mode():
                return model(x)

        return infer

    settings: dict[str, Any] = {"lr": rate, "fused": True}
    if optimizer == "sgd":
        update: Any = torch.optim.SGD(model.parameters(), **settings)
    else:
        update = torch.optim.Adam(model.parameters(), **settings)
    if network.labels:
        loss_of: Any = torch.nn.CrossEntropyLoss()
    else:
        loss_of = torch.nn.BCEWithLogitsLoss()

    def train() -> torch.Tensor:
        update.zero_grad(set_to_none=True)
        loss = loss_of(model(x), y)
        loss.backward()
        update.step()
        return loss.detach()

    return train


class _Stack(torch.nn.Module):
    """Recurrent layers and a linear output at every step; mean over time for labels."""

    def __init__(self, layer: Callable, network: Network) -> None:
        super().__init__()
        pairs = itertools.pairwise(network.sizes[:-1])
        self.layers = torch.nn.ModuleList([layer(n, m) for n, m in pairs])
        self.readout = torch.nn.Linear(network.sizes[-2], network.sizes[-1])
        self.labels = network.labels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        x = self.readout(x)
        return x.mean(0) if self.labels else x


class _LSTM(torch.nn.Module):
    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(inputs, units)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


class _Leaky(torch.nn.Module):
    """snntorch.Leaky with its defaults: subtracting reset, arctangent surrogate."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        import snntorch

        self.linear = torch.nn.Linear(inputs, units)
        self.unit = snntorch.Leaky(beta=0.8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        membrane = self.unit.reset_mem()
        spikes = []
        for drive in self.linear(x).unbind(0):
            spike, membrane = self.unit(drive, membrane)
            spikes.append(spike)
        return torch.stack(spikes)


class _LIFNode(torch.nn.Module):
    """spikingjelly's LIFNode in multi-step mode; the same decay and hard reset as the SNU.

    On a GPU version 2 takes its fused kernels by itself, where triton is installed.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        from spikingjelly.activation_based import neuron

        self.linear = torch.nn.Linear(inputs, units)
        self.unit = neuron.LIFNode(tau=5.0, decay_input=False, step_mode="m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.unit.reset()
        return self.unit(self.linear(x))


class _LIFBox(torch.nn.Module):
    """norse's LIFBoxCell, its cheapest leaky unit with a threshold, decay 0.8, over time."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        import norse.torch
        from norse.torch.functional.lif_box import LIFBoxParameters

        self.linear = torch.nn.Linear(inputs, units)
        # dt = 1 ms: v += dt / tau * (5 x - v), with the drive scaled to what the others get.
        self.unit = norse.torch.LIFBoxCell(LIFBoxParameters(tau_mem_inv=torch.as_tensor(200.0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, spikes = None, []
        for drive in (5.0 * self.linear(x)).unbind(0):
            spike, state = self.unit(drive, state)
            spikes.append(spike)
        return torch.stack(spikes)


_LAYERS: dict[str, Callable] = {
    "torch": _LSTM,
    "snntorch": _Leaky,
    "spikingjelly": _LIFNode,
    "norse": _LIFBox,
}


def _products(contestant: Contestant, network: Network, work: str) -> Callable[[], Any]:
    shapes = network.products(work, contestant.recurrent)
    factors = [
        (
            torch.randn(rows, inner, device=_device()),
            torch.randn(inner, columns, device=_device()) / inner**0.5,
        )
        for rows, inner, columns, _ in shapes
    ]

    def step() -> torch.Tensor:
        with torch.inference_mode():
            for (left, right), (_, _, _, times) in zip(factors, shapes, strict=True):
                for _ in range(times):
                    left = left @ right
        return left

    return step


def _device() -> str:
    """Return where tensors go: a worker for the processor sees no GPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def wait(result: Any) -> None:
    """Wait for a GPU; on a CPU torch returns when it is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def value(result: Any) -> float:
    """Return the mean of a step's result: for training, the loss."""
    return float(result.mean())
