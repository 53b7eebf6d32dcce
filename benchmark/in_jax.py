"""Contestants on JAX: spyx, and the SNU as a JAX programmer would write it with lax.scan.

Steps are compiled whole by jax.jit and take and return their parameters, whose memory is donated.
Data are time-first. As for torch, linear layers take all steps at once.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmark.contestants import Contestant
from benchmark.networks import Network


def build(
    contestant: Contestant, network: Network, work: str, optimizer: str, rate: float
) -> Callable[[], Any]:
    """Return a function that does one step; the counterpart of `in_keras.build`."""
    arrays = network.data()
    x = jnp.asarray(arrays[0].transpose(1, 0, 2))
    y = jnp.asarray(arrays[1] if network.labels else arrays[1].transpose(1, 0, 2))
    make = _spyx if contestant.library == "spyx" else _by_hand
    parameters, apply = make(network)

    def outputs(parameters: Any, x: jax.Array) -> jax.Array:
        z = apply(parameters, x)
        return z.mean(0) if network.labels else z

    if work == "inference":
        infer = jax.jit(outputs)
        return lambda: infer(parameters, x)

    def loss_of(parameters: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        z = outputs(parameters, x)
        if network.labels:
            return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()
        return optax.sigmoid_binary_cross_entropy(z, y).mean()

    update = {"sgd": optax.sgd, "adam": optax.adam}[optimizer](rate)

    def step(state: tuple[Any, Any], x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        parameters, of_optimizer = state
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
        changes, of_optimizer = update.update(gradients, of_optimizer, parameters)
        return (optax.apply_updates(parameters, changes), of_optimizer), loss

    compiled = jax.jit(step, donate_argnums=0)
    state = (parameters, update.init(parameters))

    def train() -> jax.Array:
        nonlocal state
        state, loss = compiled(state, x, y)
        return loss

    return train


def _spyx(network: Network) -> tuple[Any, Callable]:
    """Make a network of spyx.nn.LIF with its default surrogate; spyx.nn.run scans over time."""
    import spyx.nn
    from flax import nnx

    rngs = nnx.Rngs(0)
    sizes = network.sizes
    pairs = list(itertools.pairwise(sizes))
    linear = [nnx.Linear(n, m, rngs=rngs) for n, m in pairs]
    units = [spyx.nn.LIF((m,), beta=0.8, rngs=rngs) for m in sizes[1:-1]]
    # Split and merged as in spyx.optimize.compile_fit, which spares nnx.jit's work in each call.
    graph, parameters = nnx.split((nnx.List(linear), nnx.List(units)))

    def apply(parameters: Any, x: jax.Array) -> jax.Array:
        linear, units = nnx.merge(graph, parameters)
        for before, unit in zip(linear[:-1], units, strict=True):
            x, _ = spyx.nn.run(unit, before(x))
        return linear[-1](x)

    return parameters, apply


def _by_hand(network: Network) -> tuple[Any, Callable]:
    """Make a network of the equations of snukeras.layers.SNU, differentiated by JAX."""
    rng = np.random.default_rng(0)
    parameters = []
    for i, (n, m) in enumerate(itertools.pairwise(network.sizes)):
        limit = (6 / (n + m)) ** 0.5
        kernel = rng.uniform(-limit, limit, (n, m)).astype("float32")
        last = i == len(network.sizes) - 2
        offset = np.full(m, 0.0 if last else 1.0, "float32")
        parameters.append({"kernel": jnp.asarray(kernel), "offset": jnp.asarray(offset)})

    def unit(drive: jax.Array, threshold: jax.Array) -> jax.Array:
        def body(
            carry: tuple[jax.Array, jax.Array], a: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            s, y = carry
            s = jax.nn.relu(a + 0.8 * s * (1 - y))
            y = _step(s - threshold)
            return (s, y), y

        zeros = jnp.zeros_like(drive[0])
        return jax.lax.scan(body, (zeros, zeros), drive)[1]

    def apply(parameters: Any, x: jax.Array) -> jax.Array:
        for layer in parameters[:-1]:
            x = unit(x @ layer["kernel"], layer["offset"])
        return x @ parameters[-1]["kernel"] + parameters[-1]["offset"]

    return parameters, apply


@jax.custom_jvp
def _step(z: jax.Array) -> jax.Array:
    return (z > 0).astype(z.dtype)


@_step.defjvp
def _step_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (z,), (tangent,) = primals, tangents
    return _step(z), (1 - jnp.tanh(z) ** 2) * tangent


def wait(result: Any) -> None:
    """Wait for a step to end."""
    result.block_until_ready()


def value(result: Any) -> float:
    """Return the mean of a step's result: for training, the loss."""
    return float(jnp.mean(result))
