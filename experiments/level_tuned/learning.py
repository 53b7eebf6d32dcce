"""All-memristive networks: level-tuned neurons beside the classic winner-takes-all.

    python -m experiments.level_tuned search run pictures
    python -m experiments.level_tuned run --tasks overlap

Three tasks, each without labels, one spike a pixel or stream and step:

- patterns: four images of 20 of 100 pixels, a neuron each;
- overlap: three squares, each inside the next, of 9, 25 and 49 pixels;
- streams: two or three groups of correlated streams, of equal and of different sizes, among as many
  uncorrelated ones.

`search` chooses level and depression for each task and coupling, with seeds of its own; for streams
anew for each condition. The tasks then run with ten others. All of it is in
experiments/results/level_tuned; what is there already is not done again.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.level_tuned.tasks import CHUNK

if TYPE_CHECKING:
    import keras

LEARNED = 0.7  # agreement of a neuron's synapses from which on it has learned
INITIAL_PULSES = 20  # SET pulses to each synapse


def network(task: Any, coupling: str, level: float, depression: float, seed: int) -> "keras.Model":
    """Make the network for a task: as many neurons as there are things to learn.

    Args:
        task: `Images` or `Streams`.
        coupling: One of COUPLINGS.
        level: Share of the input that belongs to a level, see `levels` of the task.
        depression: As for `PhaseChangeSynapses`.
        seed: Of devices and learning.
    """
    import keras

    from snukeras import layers
    from snukeras.pcm import NandakumarPCM

    units, features = task.sets.shape
    # Levels in uS follow from what a device conducts when the network starts, on average.
    conductance = INITIAL_PULSES * NandakumarPCM().granularity(INITIAL_PULSES)
    levels = task.levels(level, conductance)
    makers: dict[str, Callable[[], Any]] = {
        "level-tuned": lambda: layers.LevelTuned(levels),
        "chain": lambda: layers.LevelTuned(levels, chain=True),
        "winner-takes-all": lambda: layers.WinnerTakesAll(levels[0]),
        "uncoupled": lambda: layers.Uncoupled(levels[0]),
    }
    layer = layers.AllMemristive(
        units,
        makers[coupling](),
        synapses=layers.PhaseChangeSynapses(
            units,
            initial_pulses=INITIAL_PULSES,
            depression=depression,
            window=task.window,
            seed=seed,
        ),
        neurons=layers.PhaseChangeNeurons(units, pulse_input=levels[0] / 2.0, seed=seed),
        return_potentials=True,
        seed=seed,
        name="memristive",
    )
    inputs = keras.Input((None, features))
    model = keras.Model(inputs, layer(inputs))
    model.compile(jit_compile=True)
    return model


def agreement(conductances: np.ndarray, members: np.ndarray) -> float:
    """Return intersection over union of a set of inputs and those with conductive synapses.

    A synapse counts as conductive above the middle of the means within and outside the set.
    """
    inside = members > 0
    low, high = conductances[~inside].mean(), conductances[inside].mean()
    if high <= low:
        return 0.0
    conductive = conductances > (low + high) / 2.0
    return float((conductive & inside).sum() / (conductive | inside).sum())


def assign(conductances: np.ndarray, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the neuron of each set, one each, and how well its synapses agree with the set."""
    from scipy.optimize import linear_sum_assignment

    table = np.array(
        [[agreement(conductances[:, k], members) for k in range(len(sets))] for members in sets]
    )
    rows, neurons = linear_sum_assignment(-table)
    return neurons, table[rows, neurons]


def train(
    model: "keras.Model", task: Any, steps: int, seed: int, test: bool = True
) -> dict[str, Any]:
    """Train one network and describe what it has learned.

    Args:
        model: Made by `network`.
        task: `Images` or `Streams`.
        steps: Steps to learn from.
        seed: Of the inputs.
        test: Whether to show it new inputs in the end.
    """
    layer = model.get_layer("memristive")
    x = task.training(steps, seed)
    samples = CHUNK // task.presentation
    learned_at: int | None = None
    for start in range(0, len(x), samples):
        model.train_on_batch(x[start : start + samples])
        g = np.asarray(layer.synapses.conductance)
        whole = bool((assign(g, task.sets)[1] >= LEARNED).all())
        if not whole:
            learned_at = None
        elif learned_at is None:
            learned_at = start * task.presentation + CHUNK
            events_then = sum(layer.programming_events().values())
    neurons, agreements = assign(g, task.sets)
    inside = [g[members > 0, k].mean() for members, k in zip(task.sets, neurons, strict=True)]
    outside = [g[members == 0, k].mean() for members, k in zip(task.sets, neurons, strict=True)]
    result = {
        "seed": seed,
        "learned": int((agreements >= LEARNED).sum()),
        "agreement": float(agreements.mean()),
        "steps_to_learn": learned_at,
        "events_to_learn": None if learned_at is None else events_then,
        "inside_uS": float(np.mean(inside)),
        "outside_uS": float(np.mean(outside)),
        "events": layer.programming_events(),
    }
    return result if not test else {**result, "recognised": recognised(model, task, neurons, seed)}


def recognised(model: "keras.Model", task: Any, neurons: np.ndarray, seed: int) -> float:
    """Return the share of new presentations at which the right neuron, and no other, fires."""
    x, shown = task.test(seed)
    spikes = np.asarray(model.predict(x, batch_size=len(x), verbose=0)[0]).sum(axis=1) > 0
    return float((spikes == (np.arange(spikes.shape[1]) == neurons[shown][:, None])).all(1).mean())


def runs(
    task: Any,
    coupling: str,
    level: float,
    depression: float,
    steps: int,
    seeds: Iterable[int],
    test: bool = True,
) -> list[dict[str, Any]]:
    """Train one network a seed; they differ in state alone, so they share one compiled model."""
    model = None
    found = []
    for seed in seeds:
        fresh = network(task, coupling, level, depression, seed)
        model = fresh if model is None else model
        model.set_weights(fresh.get_weights())
        found.append(train(model, task, steps, seed, test))
    return found
